"""Passes that write precisions into the graph."""
