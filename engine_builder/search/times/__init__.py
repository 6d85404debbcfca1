"""Latency from the kernels of engines: conversions at the borders between layers, and a fit to what was timed."""
