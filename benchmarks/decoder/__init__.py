"""A small decoder: trained by a script of its own, and one job on it measured from outside."""
