"""Tests of ``engine_builder.evaluation``."""
