"""Tests of ``calibration.accuracy.kinds``."""
