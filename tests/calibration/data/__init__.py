"""Tests of ``calibration.data``."""
