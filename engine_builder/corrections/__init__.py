"""Corrections of low layers, each kept by measurement."""
