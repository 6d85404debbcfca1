from __future__ import annotations

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.reporting.dynamic_words import neighbours_warning

DYNAMIC, STATIC = Precision.INT8_DYNAMIC, Precision.INT8


@pytest.mark.parametrize(("precisions", "batch"), [({}, 8), ({"a": STATIC}, 8), ({"a": DYNAMIC}, 1)])
def test_answers_that_do_not_depend_on_neighbours_are_no_warning(precisions: dict[str, Precision], batch: int) -> None:
    assert neighbours_warning(precisions, batch) == ()


@pytest.mark.parametrize(
    ("dynamic", "begins"), [(1, "1 layer rounds its input with"), (3, "3 layers round their inputs with the range of the whole call")]
)
def test_layers_that_round_by_call_are_counted(dynamic: int, begins: str) -> None:
    precisions = {"static": STATIC, **dict.fromkeys(map(str, range(dynamic)), DYNAMIC)}
    (words,) = neighbours_warning(precisions, 8)
    assert words.startswith(begins)
    assert "scored in calls of 8 samples" in words
