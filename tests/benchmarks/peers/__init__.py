"""Tests of benchmarks/peers/."""
