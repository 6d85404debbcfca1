"""Tests of ``service.api.live``."""
