"""Tests of ``calibration.data.formats.named_labels``."""
