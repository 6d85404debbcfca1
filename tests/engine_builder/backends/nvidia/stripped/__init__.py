"""Tests of ``engine_builder.backends.nvidia.stripped``."""
