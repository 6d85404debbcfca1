"""Tests of ``engine_builder.qdq.emit``."""
