"""Tests of engine_builder/."""
