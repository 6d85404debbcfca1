"""Tests of ``engine_builder.qdq.guards``."""
