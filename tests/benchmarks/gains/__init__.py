"""Tests of benchmarks/kinds/."""
