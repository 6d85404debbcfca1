"""What a target can take, and what goes together."""
