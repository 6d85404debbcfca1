"""Tests of ``calibration.accuracy.measures``."""
