"""What follows the verdict."""
