"""Hostile uploads, generated, against a live server; and properties of each parser."""
