"""Tests of ``benchmarks.predictions``."""
