"""Tests of ``engine_builder.backends.onnxruntime``."""
