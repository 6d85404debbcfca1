"""Tests of ``engine_builder.closed_loop``."""
