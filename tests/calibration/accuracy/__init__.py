"""Tests of ``calibration.accuracy``."""
