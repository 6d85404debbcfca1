"""Tests of ``service.database``."""
