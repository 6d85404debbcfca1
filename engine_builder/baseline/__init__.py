"""The float fallback of a baseline that misses the accuracy budget."""
