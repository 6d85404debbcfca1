"""Whole jobs on networks of real size."""
