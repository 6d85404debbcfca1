"""What is done before it is asked for."""
