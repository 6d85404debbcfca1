"""Kinds of outputs: what tells each, the parts that are judged apart, by what measure, and the loss that probes use."""
