"""Rewrites of the float model before anything is measured."""
