"""Decides and builds: precision assignments, explicit-precision graphs, engines, timing and search."""
