"""What can be proved on a machine."""
