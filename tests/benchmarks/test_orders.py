from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.order_budgets import BUDGETS, FLOAT, Deepest
from benchmarks.order_judging import Judged
from benchmarks.order_measurements import Draw, Network
from benchmarks.orders import budget_result, pictures, predictions_of, random_order, saved_engines
from calibration.number_formats.precision import Precision
from engine_builder.search.loss_model import LossModel


def test_draws_are_disjoint_and_of_the_size_asked_for() -> None:
    draws, held_out = pictures(2, 64, 10)
    assert [len(draw) for draw in (*draws, held_out)] == [64, 64, 10]
    assert not {picture.tobytes() for picture in draws[0]} & {picture.tobytes() for picture in draws[1]}


def test_random_order_is_a_seeded_shuffle(network: Network) -> None:
    layer_precisions = network.layer_precisions(Precision.INT8)
    assert random_order(layer_precisions, 3) == random_order(layer_precisions, 3)
    assert sorted(random_order(layer_precisions, 3)) == sorted(layer_precisions)


def test_a_prediction_counts_as_right_within_two_bars_of_model_and_measurement_together(network: Network) -> None:
    layer_precisions = network.layer_precisions(Precision.INT8)
    losses = LossModel(layer_precisions, np.array([1.0, 1.0]), np.diag([0.045, 0.045]), np.zeros((2, 2)), np.zeros((2, 2)))
    said = [predictions_of(losses, layer_precisions, [Judged(1.0, 0.0, 1.0), Judged(loss, 0.4, 1.0)]) for loss in (2.9, 3.1)]
    assert [len(found) for found in said] == [1, 1]  # a single layer precision is no prediction
    assert said[0][0].bar == pytest.approx(0.5)
    assert [found[0].within for found in said] == [True, False]


def test_the_networks_to_time_are_written_once_each_with_the_float_one(network: Network, roomy: Draw, tmp_path: Path) -> None:
    quantized = network.layer_precisions(Precision.INT8)
    engines = saved_engines(network, roomy, [Deepest(quantized, 0.5), Deepest(quantized[::-1], 0.5), Deepest((), 1.0)], tmp_path)
    assert len(engines) == 2
    assert engines[frozenset()] == FLOAT
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"small-{name}.onnx" for name in engines.values())


def test_a_budget_tells_of_every_draw_and_of_the_network_of_the_first(network: Network) -> None:
    quantized = network.layer_precisions(Precision.INT8)
    found = budget_result("loss", 1, [Deepest(quantized[:1], 0.8), Deepest(quantized, 0.6)], {frozenset(quantized[:1]): "7"})
    assert (found.budget, found.moves, found.predicted, found.engine) == (BUDGETS[1], (1, 2), (0.8, 0.6), "7")
    assert budget_result("loss", 1, [Deepest(quantized, None)], {}).engine is None
