"""Tests of ``service.jobs.live``."""
