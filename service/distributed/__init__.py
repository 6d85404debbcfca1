"""Processes that work together on one database."""
