"""Plans without their weights."""
