"""Tests of benchmarks/other_processors/."""
