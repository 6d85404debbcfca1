"""What is judged and kept once the search has ended."""
