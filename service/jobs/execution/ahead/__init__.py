"""Engines that are built on idle GPUs before the search of a job asks for them."""
