"""Tests of ``calibration.graph_passes.equalization``."""
