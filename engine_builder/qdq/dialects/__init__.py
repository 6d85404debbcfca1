"""What differs between targets in the explicit graph that they build their engines from."""
