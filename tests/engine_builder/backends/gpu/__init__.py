"""Tests of ``engine_builder.backends.gpu``."""
