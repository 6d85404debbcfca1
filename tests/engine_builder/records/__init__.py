"""Tests of ``engine_builder.records``."""
