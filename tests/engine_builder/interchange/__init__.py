"""Tests of ``engine_builder.interchange``."""
