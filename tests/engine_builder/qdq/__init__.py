"""Tests of the explicit graphs."""
