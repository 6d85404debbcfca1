"""Tests of ``engine_builder.qdq.adapt``."""
