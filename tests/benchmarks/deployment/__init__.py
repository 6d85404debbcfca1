"""Tests of ``benchmarks.deployment``."""
