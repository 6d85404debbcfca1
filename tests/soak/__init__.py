"""Hundreds of small real jobs over HTTP while processes are killed at random moments."""
