"""Tests of ``service.python``."""
