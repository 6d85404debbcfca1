"""Tests of ``calibration.onnx_model``."""
