"""GPUs: what there are, their state, memory, streams and events."""
