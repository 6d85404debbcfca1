"""Tests of ``service.jobs.quotas``."""
