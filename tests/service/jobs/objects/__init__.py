"""Tests of ``service.jobs.objects``."""
