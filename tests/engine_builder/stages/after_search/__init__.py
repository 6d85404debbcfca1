"""Tests of ``engine_builder.stages.after_search``."""
