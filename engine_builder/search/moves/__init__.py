"""Steps from one assignment to another: single layers, runs of neighbours and blocks."""
