"""Tests of ``engine_builder.qdq.dialects``."""
