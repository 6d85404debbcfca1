"""How the body of a request comes in."""
