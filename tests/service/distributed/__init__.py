"""Tests of ``service.distributed``."""
