"""Tests of ``engine_builder.backends.nvidia.rtx``."""
