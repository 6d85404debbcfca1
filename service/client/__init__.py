"""The HTTP contract from the side of those who ask."""
