"""Tests of ``engine_builder.search.moves``."""
