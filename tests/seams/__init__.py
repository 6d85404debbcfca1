"""Tests that the program grows by one file and one row of a table."""
