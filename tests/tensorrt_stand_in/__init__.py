"""A module ``tensorrt`` for machines without a GPU: NVIDIA's RTX builder builds, onnxruntime runs, a stub driver keeps the time."""
