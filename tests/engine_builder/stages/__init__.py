"""Tests of ``engine_builder.stages``."""
