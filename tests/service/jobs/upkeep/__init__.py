"""Tests of ``service.jobs.upkeep``."""
