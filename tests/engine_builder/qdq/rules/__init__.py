"""Tests of ``engine_builder.qdq.rules``."""
