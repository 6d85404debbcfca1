"""Tests of service.jobs.faults."""
