"""Look-ups and names in the explicit graph."""
