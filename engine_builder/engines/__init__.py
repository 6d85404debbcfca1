"""Which layers may be quantized, and building an engine of an assignment."""
