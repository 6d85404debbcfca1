"""Tests of ``engine_builder.search.strategies``."""
