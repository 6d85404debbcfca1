"""Targets: building engines, running them, timing them."""
