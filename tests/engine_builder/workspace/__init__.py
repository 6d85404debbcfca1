"""Tests of ``engine_builder.workspace``."""
