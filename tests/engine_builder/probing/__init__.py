"""Parts that are measured with a given provider."""
