"""Tests of ``service.object_store``."""
