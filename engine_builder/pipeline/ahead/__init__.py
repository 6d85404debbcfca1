"""What may be asked for next, and how it is begun before that."""
