"""Tests of benchmarks/sizes/."""
