from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from calibration.execution.onnxruntime_session import Piece
from engine_builder.self_check.model import INPUT, OUTPUT, CheckedNetwork, checked_network


@pytest.fixture(scope="module")
def network() -> CheckedNetwork:
    return checked_network(samples=32)


def test_it_is_a_valid_residual_network_of_about_twenty_convolutions(network: CheckedNetwork) -> None:
    onnx.checker.check_model(network.model, full_check=True)
    kinds = Counter(node.op_type for node in network.model.graph.node)
    assert (kinds["Conv"], kinds["Add"], kinds["Gemm"]) == (21, 9, 1)
    assert all(node.name for node in network.model.graph.node)


def test_most_predictions_are_right_so_that_wrong_arithmetic_would_show(network: CheckedNetwork) -> None:
    logits = Piece(network.model, threads=2).run({INPUT: network.validation})[OUTPUT]
    assert np.mean(logits.argmax(axis=1) == network.labels) > 0.7


def test_the_same_seed_gives_the_same_network_and_pictures(network: CheckedNetwork) -> None:
    again = checked_network(samples=32)
    np.testing.assert_array_equal(again.validation, network.validation)
    first, second = (
        {t.name: t.raw_data for t in made.model.graph.initializer if not t.name.startswith("head")} for made in (network, again)
    )
    assert first == second


def test_pictures_that_judge_are_not_those_that_ranges_come_from(network: CheckedNetwork) -> None:
    assert not any(np.array_equal(one, other) for one in network.validation[:10] for other in network.calibration)
