"""Tests of ``engine_builder.profiling``."""
