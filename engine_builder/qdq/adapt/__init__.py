"""Exact rewrites of the float graph that a parser needs."""
