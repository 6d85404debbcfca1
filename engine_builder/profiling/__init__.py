"""Kernel times, and what they predict."""
