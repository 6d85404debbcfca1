"""Calibration and validation samples: reading them, their axes, what is odd about them."""
