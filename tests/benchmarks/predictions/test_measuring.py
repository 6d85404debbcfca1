from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.predictions.engines import Mixed, Shape, mixed_engines
from benchmarks.predictions.measuring import Bench, Predicted, Row, predicted, within_two_errors
from benchmarks.predictions.networks import gated
from benchmarks.predictions.page import page
from benchmarks.results_files import environment


def row(measured: float, after: float, error: float = 0.01) -> Row:
    return Row(Shape.RUN, 3, measured, 0.01, after, after, error, 2.0 * measured, 1.5 * measured)


FOUND = Predicted("a network", 9, 2.0, (row(0.5, 0.55), row(0.8, 0.8), row(1.0, 0.9)))


def test_the_median_error_and_the_rank_correlation_are_those_of_the_rows() -> None:
    assert FOUND.median_error(lambda one: one.after) == pytest.approx(0.1)
    assert FOUND.rank_correlation(lambda one: one.after) == pytest.approx(1.0)
    assert within_two_errors(FOUND) == pytest.approx(1 / 3)


def test_the_page_has_a_row_for_each_network_and_says_which_miss_the_bars() -> None:
    good = Predicted("another", 9, 2.0, (row(0.5, 0.5), row(0.8, 0.8)))
    text = page([FOUND, good], environment(), 5)
    assert "missed by a network." in text
    assert "another," not in text
    assert text.count("\n| ") == 2 + 1 + 1
    assert "VNNI" in text


def test_a_small_network_is_built_timed_and_predicted(tmp_path: Path) -> None:
    bench = Bench(gated(side=16), tmp_path)
    layers = [layer.name for layer in bench.layers]
    mixed = mixed_engines(layers, 1, np.random.default_rng(0))
    found = predicted("small", bench, mixed)
    assert [one.shape for one in found.rows] == [one.shape for one in mixed]
    assert all(one.measured > 0.0 and one.before > 0.0 and one.after > 0.0 and one.error > 0.0 for one in found.rows)
    assert isinstance(mixed[0], Mixed)
