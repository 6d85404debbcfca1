"""Tests of engine_builder/search/descents/."""
