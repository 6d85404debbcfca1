"""Which networks gain from low precisions on TensorRT-RTX, by the predicted latencies of real plans, and which do not and why."""
