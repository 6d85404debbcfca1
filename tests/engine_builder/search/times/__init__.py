"""Tests of ``engine_builder.search.times``."""
