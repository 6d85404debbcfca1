"""Tests of service.jobs.storage."""
