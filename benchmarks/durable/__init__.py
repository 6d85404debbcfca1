"""What it costs that jobs outlast a crash, and what further workers gain."""
