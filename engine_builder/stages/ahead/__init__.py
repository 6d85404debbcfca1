"""What is done of a trial before the search asks for it."""
