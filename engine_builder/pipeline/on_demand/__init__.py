"""What is measured when the search first needs it."""
