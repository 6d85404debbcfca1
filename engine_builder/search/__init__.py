"""Proposes precision assignments and learns from the trials it is told about."""
