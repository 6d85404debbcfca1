"""Tests of ``calibration.process``."""
