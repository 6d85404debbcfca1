"""Tests of ``calibration.algorithms``."""
