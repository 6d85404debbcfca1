"""What each layer loses in low precision."""
