"""Tests of ``service.jobs.execution``."""
