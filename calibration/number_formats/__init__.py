"""Number formats and which layer has which."""
