"""Tests of ``service.jobs``."""
