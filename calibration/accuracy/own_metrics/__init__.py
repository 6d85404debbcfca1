"""Metrics of the user's own."""
