"""Which layers may be low, and building an engine of an assignment."""
