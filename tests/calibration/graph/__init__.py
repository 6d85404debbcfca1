"""Tests of ``calibration.graph``."""
