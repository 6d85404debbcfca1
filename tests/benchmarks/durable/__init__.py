"""Tests of benchmarks/durable."""
