"""What a reader decides from: the headline, the engines beside the one that was chosen, why none is faster, and what to do next."""
