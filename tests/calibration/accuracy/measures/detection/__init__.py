"""Tests of ``calibration.accuracy.measures.detection``."""
