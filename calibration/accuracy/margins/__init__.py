"""What the margins of decisions say about the share of decisions that an engine changes."""
