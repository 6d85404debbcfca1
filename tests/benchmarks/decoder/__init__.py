"""Tests of benchmarks/decoder/."""
