"""What a model graph holds: its layers, types and names."""
