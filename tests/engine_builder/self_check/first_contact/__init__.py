"""Tests of ``engine_builder.self_check.first_contact``."""
