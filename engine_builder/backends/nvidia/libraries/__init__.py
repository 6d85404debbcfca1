"""Libraries that TensorRT loads beside its own: plugins, and the lean runtime."""
