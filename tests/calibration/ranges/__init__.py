"""Tests of ``calibration.ranges``."""
