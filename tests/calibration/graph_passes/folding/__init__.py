"""Tests of the folding of constants into layers."""
