"""Validation and simulation of explicit models."""
