"""Tests of ``calibration.execution``."""
