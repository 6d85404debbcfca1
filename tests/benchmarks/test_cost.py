from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cost import LAYER_LOSSES, PAIRS, SESSIONS, TRACES, ModelCost, growth, measure, page, peak_against_bar, plain_forwards
from benchmarks.cost_probe import ProbeCost, StageCost

ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)


def cost(layer_precisions: int) -> ProbeCost:
    passes = {SESSIONS: 0, LAYER_LOSSES: 16 * layer_precisions, PAIRS: 32 * layer_precisions, TRACES: 64 * layer_precisions**2}
    stages = tuple(StageCost(stage, count, 2.0, 1.0, 600_000_000) for stage, count in passes.items())
    return ProbeCost(layer_precisions, 16, 16, 16, 0.01, stages)


def test_layer_losses_are_in_plain_forwards_with_their_sessions_counted() -> None:
    assert plain_forwards(cost(25)) == pytest.approx(2.0 / (25 * 16 * 0.01))


def test_memory_is_compared_with_300_mb_and_three_times_the_model() -> None:
    assert peak_against_bar(ModelCost("m", "trained", 100_000_000, cost(5), None)) == 1.0


def test_growth_is_the_power_of_n() -> None:
    costs = [cost(10), cost(20), cost(40)]
    assert [growth(costs, stage) for stage in (LAYER_LOSSES, TRACES)] == [pytest.approx(1.0), pytest.approx(2.0)]


def test_growth_of_one_size_is_unknown() -> None:
    assert growth([cost(10), cost(10)], LAYER_LOSSES) is None


def test_page_lists_what_was_not_measured() -> None:
    done = ModelCost("small", "trained", 1_000_000, cost(10), None)
    text = page([done, replace(done, name="large", cost=None, failure="stopped")], ENVIRONMENT)
    assert "- large (1 MB): stopped" in text
    assert text.count("| small |") == 1 + 4


def test_network_that_cannot_be_read_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    found = measure("m", tmp_path / "m.onnx", "as given", 2, 60)
    assert found.cost is None
    assert "InvalidModelError" in str(found.failure)
