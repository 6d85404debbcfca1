"""Stages in child processes, and their cache."""
