"""Build routes of the leading engine."""
