"""A generator of sound random models, and the laws that hold for every one of them."""
