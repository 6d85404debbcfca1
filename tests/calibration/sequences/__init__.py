"""Tests of ``calibration.sequences``."""
