"""Whole jobs on small networks of every kind, judged from outside by the measure that their user reads."""
