"""How near predicted losses of engines come to the measured ones."""
