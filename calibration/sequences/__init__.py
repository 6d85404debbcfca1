"""Sequences of steps: models with a state, and the samples that are run through them one step after another."""
