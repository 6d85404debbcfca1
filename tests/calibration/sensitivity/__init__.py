"""Tests of ``calibration.sensitivity``."""
