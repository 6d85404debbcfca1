"""Tests of ``engine_builder.config``."""
