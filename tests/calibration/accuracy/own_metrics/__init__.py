"""Tests of ``calibration.accuracy.own_metrics``."""
