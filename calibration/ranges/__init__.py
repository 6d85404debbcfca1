"""Ranges of tensors."""
