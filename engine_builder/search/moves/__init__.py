"""Steps from one engine to another: single layers, runs of neighbours, blocks, and build routes of the same layers."""
