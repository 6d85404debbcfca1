from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InvalidConfigError
from engine_builder.config.config import config_from_json, config_json
from engine_builder.config.objective import Objective


@pytest.mark.parametrize("objective", [{"min_speedup": 1.5}, {"max_latency_ms": 2.0}])
def test_the_effective_configuration_reads_back_as_the_same(objective: dict[str, float]) -> None:
    config = config_from_json({"objective": objective, "accuracy": {"metric": "cosine"}})
    effective = config_json(config)
    assert isinstance(effective["accuracy"], dict)
    assert "min_relative" not in effective["accuracy"]  # the objective takes its place
    assert config_from_json(effective) == config


def test_without_an_objective_the_budget_stays() -> None:
    effective = config_json(config_from_json({}))
    assert effective["objective"] is None
    assert isinstance(effective["accuracy"], dict)
    assert effective["accuracy"]["min_relative"] is not None


@pytest.mark.parametrize(("objective", "found"), [({}, "neither"), ({"min_speedup": 2.0, "max_latency_ms": 1.0}, "both")])
def test_an_objective_is_one_of_two(objective: dict[str, float], found: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"objective: found {found} of min_speedup and max_latency_ms"):
        config_from_json({"objective": objective})


@pytest.mark.parametrize("objective", [{"min_speedup": 1.0}, {"min_speedup": 0.5}, {"max_latency_ms": 0.0}, {"min_speedup": "2x"}])
def test_what_asks_for_nothing_is_refused(objective: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError, match=r"objective\.m"):
        config_from_json({"objective": objective})


@pytest.mark.parametrize("budget", [{"min_relative": 0.99}, {"max_nmse": 0.01}, {"min_psnr": 40.0}, {"confidence": 0.9}])
def test_a_budget_beside_an_objective_is_refused_with_both_questions(budget: dict[str, float]) -> None:
    (key,) = budget
    with pytest.raises(InvalidConfigError, match=rf"found objective together with accuracy\.{key}") as refused:
        config_from_json({"objective": {"min_speedup": 1.5}, "accuracy": budget})
    assert refused.value.fix.startswith(f"Leave out objective, or accuracy.{key}.")


def test_a_budget_of_null_is_none() -> None:
    assert config_from_json({"objective": {"min_speedup": 1.5}, "accuracy": {"min_relative": None, "max_nmse": None}}).objective


@pytest.mark.parametrize("metric", ["nmse", "psnr"])
def test_metrics_that_need_their_budget_are_refused(metric: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"objective together with the metric {metric}, which needs a budget"):
        config_from_json({"objective": {"min_speedup": 1.5}, "accuracy": {"metric": metric}})


@given(st.floats(1.01, 100.0), st.floats(0.01, 100.0))
def test_fast_enough_is_a_ratio_to_the_baseline(times: float, baseline_ms: float) -> None:
    assert Objective(min_speedup=times).largest_ratio(baseline_ms) == pytest.approx(1.0 / times)
    assert Objective(max_latency_ms=times).largest_ratio(baseline_ms) * baseline_ms == pytest.approx(times)


def test_it_is_said_in_words() -> None:
    assert Objective(min_speedup=1.5).in_words == "is at least 1.5x as fast as the baseline"
    assert Objective(max_latency_ms=2.25).in_words == "takes at most 2.25 ms a call"
