"""ONNX Runtime's CPU provider."""
