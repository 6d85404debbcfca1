"""Tests of calibration/data/given/."""
