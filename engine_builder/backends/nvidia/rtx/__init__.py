"""What is known of TensorRT-RTX before it builds."""
