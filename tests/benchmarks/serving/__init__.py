"""Tests of ``benchmarks.serving``."""
