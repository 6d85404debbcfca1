"""Tests of ``calibration.accuracy.measures.tasks``."""
