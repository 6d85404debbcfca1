"""Tests of ``engine_builder.reporting``."""
