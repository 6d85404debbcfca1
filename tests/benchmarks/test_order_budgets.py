from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.order_budgets import (
    BUDGETS,
    best_of_frontier,
    deepest,
    deepest_prefixes,
    measured_times,
    precisions,
    timed,
)
from benchmarks.order_judging import HeldOut, Judged
from benchmarks.order_measurements import Draw, Network
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.loss_model import LossModel
from engine_builder.search.time_model import TimeModel

INT8 = Precision.INT8


def agreeing(*shares: float) -> list[Judged]:
    return [Judged(0.0, 0.0, share) for share in shares]


def times(network: Network, gain_ms: float) -> TimeModel:
    return TimeModel(1.0, dict.fromkeys(network.layer_precisions(INT8), gain_ms), (), 0.0, {})


def test_the_deepest_prefix_counts_even_behind_one_that_is_outside() -> None:
    assert deepest(agreeing(1.0, 0.98, 0.995, 0.9), 0.99) == 3
    assert deepest(agreeing(0.98, 0.97), 0.99) == 0


def test_each_budget_has_its_own_prefix_and_latency(network: Network) -> None:
    order = network.layer_precisions(INT8)
    found = deepest_prefixes(order, agreeing(0.9995, 0.992), times(network, 0.25))
    assert [(len(item.quantized), item.predicted) for item in found] == [(2, 0.5), (1, 0.75), (0, 1.0)]
    assert [item.predicted for item in deepest_prefixes(order, agreeing(1.0, 1.0), None)] == [None] * len(BUDGETS)


@pytest.mark.parametrize(("gain_ms", "moves"), [(0.25, 2), (-0.25, 0)])
def test_the_frontier_reaches_what_is_fastest_and_stays_in_float_where_nothing_is(
    network: Network, roomy: Draw, gain_ms: float, moves: int
) -> None:
    layer_precisions = network.layer_precisions(INT8)
    losses = LossModel(layer_precisions, np.array([1e-4, 2e-4]), np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))
    judge = HeldOut(network, 10.0 * np.eye(4, dtype=np.float32))  # far from every border between classes
    found = best_of_frontier(losses, times(network, gain_ms), judge, Draw("0", dict.fromkeys(roomy.ranges, (-90.0, 90.0)), {}))
    assert [len(item.quantized) for item in found] == [moves] * len(BUDGETS)
    assert found[0].predicted == (pytest.approx(0.5) if moves else 1.0)


def test_layer_precisions_are_an_assignment() -> None:
    assert precisions([LayerPrecision("a", INT8)]) == {"a": INT8}


def test_the_time_model_says_of_the_all_quantized_network_what_was_timed(
    network: Network, roomy: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.order_budgets.SECONDS_A_NETWORK", 0.05)
    x = np.zeros((64, 4), dtype=np.float32)
    found = measured_times(network, network.layer_precisions(INT8), roomy, x, tmp_path)
    assert found.baseline_ms > 0.0
    assert set(found.gain_ms) == set(network.layer_precisions(INT8))
    assert found.ratio({}) == 1.0
    assert found.ratio(precisions(network.layer_precisions(INT8))) > 0.0


def test_all_networks_are_timed_in_the_same_rounds(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.order_budgets.SECONDS_A_NETWORK", 0.05)
    onnx.save_model(network.model, tmp_path / "one.onnx")
    found = timed({"float": tmp_path / "one.onnx", "again": tmp_path / "one.onnx"}, {"x": np.zeros((2, 4), dtype=np.float32)})
    assert len(found["float"].block_ms) == len(found["again"].block_ms) > 0
