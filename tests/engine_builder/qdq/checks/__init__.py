"""Tests of ``engine_builder.qdq.checks``."""
