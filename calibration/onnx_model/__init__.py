"""The ONNX file: reading it, checking it, bringing it to a recent opset."""
