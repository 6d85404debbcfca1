"""Leaves the first few cases of a parametrized test to every run, and marks the others long."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def mostly_long(cases: Iterable[object], quick: int = 1) -> list[object]:
    """Return the cases for ``pytest.mark.parametrize``, of which all but the first ``quick`` are long; a tuple is the values of one."""
    marked: list[object] = []
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=pytest.mark.long) if number >= quick else case)
    return marked
