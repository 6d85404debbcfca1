"""Measures: one value per sample of how far or how good an output is; a file holds those that compare the same thing."""
