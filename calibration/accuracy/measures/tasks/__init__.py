"""Measures of whole tasks: decisions, segmentation, sequences, retrieval, regression, sounds and pictures."""
