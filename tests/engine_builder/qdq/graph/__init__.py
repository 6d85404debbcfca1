"""Tests of ``engine_builder.qdq.graph``."""
