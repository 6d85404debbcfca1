"""Measures: layers, ranges, sensitivities, dependencies and accuracy of an ONNX model."""
