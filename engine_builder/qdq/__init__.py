"""Rewrites a float model into one whose precisions are written in the graph (Q/DQ and Cast)."""
