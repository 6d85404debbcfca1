"""One page that sets several jobs side by side."""
