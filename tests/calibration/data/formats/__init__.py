"""Tests of ``calibration.data.formats``."""
