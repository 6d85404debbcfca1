"""Tests of ``calibration.accuracy.margins``."""
