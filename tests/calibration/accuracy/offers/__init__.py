"""Tests of calibration/accuracy/offers/."""
