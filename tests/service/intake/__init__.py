"""Tests of ``service.intake``."""
