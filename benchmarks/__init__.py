"""Measures on real networks what this project claims: the orders of its search, and whole jobs as a user runs them."""
