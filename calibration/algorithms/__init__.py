"""What makes quantized layers less lossy."""
