"""Corrections of quantized layers, each kept by measurement."""
