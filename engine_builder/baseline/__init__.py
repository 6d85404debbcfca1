"""Repairs of a baseline that overflows."""
