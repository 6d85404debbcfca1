"""Tests of ``service.cli.inspecting``."""
