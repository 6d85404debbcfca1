"""What the package onnx_trt_optimizer offers to Python."""
