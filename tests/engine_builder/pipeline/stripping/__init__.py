"""Tests of ``engine_builder.pipeline.stripping``."""
