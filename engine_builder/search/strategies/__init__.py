"""Search strategies: which candidate sequences are tried, and in which order; one file each, and their table."""
