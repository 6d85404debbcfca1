"""Build routes of the leading engine, after the search."""
