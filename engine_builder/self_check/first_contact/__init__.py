"""The first minutes on a GPU: what CUDA does there, a small TensorRT engine, and the tests marked gpu."""
