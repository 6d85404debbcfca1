"""Tests of ``engine_builder.corrections``."""
