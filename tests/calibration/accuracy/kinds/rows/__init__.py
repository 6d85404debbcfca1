"""Tests of ``calibration.accuracy.kinds.rows``."""
