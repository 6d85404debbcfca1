"""The command ``python -m benchmarks.kinds``."""

from __future__ import annotations

import pytest

from benchmarks.kinds.__main__ import results_name


@pytest.mark.parametrize(("suffix", "name"), [("", "kinds"), ("after", "kinds-after"), ("-after", "kinds-after")])
def test_a_suffix_is_joined_by_one_dash(suffix: str, name: str) -> None:
    assert results_name(suffix) == name
