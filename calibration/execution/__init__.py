"""Running the float model, whole or in pieces, on ONNX Runtime."""
