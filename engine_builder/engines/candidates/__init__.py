"""A candidate of the search up to its timing."""
