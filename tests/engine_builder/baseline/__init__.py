"""Tests of ``engine_builder.baseline``."""
