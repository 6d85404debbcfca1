"""Tests of benchmarks/losses/."""
