"""Tests of ``engine_builder.engines.paying``."""
