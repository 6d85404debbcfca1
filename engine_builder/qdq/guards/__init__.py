"""Passes that keep ONNX Runtime's own rewriting from changing what an explicit graph means."""
