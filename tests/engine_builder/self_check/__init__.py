"""Tests of ``engine_builder.self_check``."""
