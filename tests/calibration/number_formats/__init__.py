"""Tests of ``calibration.number_formats``."""
