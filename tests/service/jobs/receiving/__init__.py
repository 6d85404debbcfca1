"""Tests of ``service.jobs.receiving``."""
