"""Detectors: how their outputs are read, and how well two sets of detections match."""
