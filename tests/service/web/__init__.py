"""Tests of ``service.web``: as text and in a real browser."""
