"""Cross-layer equalization: exact scaling of the channels between layers, so that one scale for all of them rounds each well."""
