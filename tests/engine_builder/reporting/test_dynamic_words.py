from __future__ import annotations

import pytest

from calibration.accuracy.metrics import Metric
from calibration.number_formats.precision import Precision
from engine_builder.reporting.dynamic_words import neighbours_warning
from engine_builder.stage_io.engines import OrderScores

DYNAMIC, STATIC = Precision.INT8_DYNAMIC, Precision.INT8


@pytest.mark.parametrize(("precisions", "batch"), [({}, 8), ({"a": STATIC}, 8), ({"a": DYNAMIC}, 1)])
def test_answers_that_do_not_depend_on_neighbours_are_no_warning(precisions: dict[str, Precision], batch: int) -> None:
    assert neighbours_warning(precisions, batch, Metric.TOP1) == ()


@pytest.mark.parametrize(
    ("dynamic", "begins"), [(1, "1 layer rounds its input with"), (3, "3 layers round their inputs with the range of the whole call")]
)
def test_layers_that_round_by_call_are_counted(dynamic: int, begins: str) -> None:
    precisions = {"static": STATIC, **dict.fromkeys(map(str, range(dynamic)), DYNAMIC)}
    (words,) = neighbours_warning(precisions, 8, Metric.TOP1)
    assert words.startswith(begins)
    assert "scored in calls of 8 samples" in words


def test_both_orders_of_the_samples_are_told() -> None:
    (words,) = neighbours_warning({"a": DYNAMIC}, 8, Metric.TOP1, OrderScores(0.91, 0.905))
    assert "in the order of the validation set (top1 0.9100) and shuffled (0.9050); the worse counts" in words
    (words,) = neighbours_warning({"a": DYNAMIC}, 8, Metric.NMSE, OrderScores(1.25e-5, 2e-5))
    assert "(nmse 1.25e-05) and shuffled (2e-05)" in words
