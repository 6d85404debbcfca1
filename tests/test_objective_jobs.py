"""Whole jobs that ask for the most accurate engine that is fast enough, both ways to say how fast, measured and predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tests.driver import Finished, Json, plain_outputs, run_job, trials_of
from tests.fake_timer import FakeTimer
from tests.long_cases import mostly_long
from tests.model_text import cnn, samples_for
from tests.test_tensorrt_rtx_job import SMALL_CACHE, needs_builder, wide

SAMPLES = 40


def objective(finished: Finished) -> Json:
    return cast(Json, finished.result["objective"])


def job(folder: Path, quantized_ms: float = 1.0, **asked: float) -> Finished:
    """Run a job of which the baseline takes 2 ms and every engine with a quantized layer ``quantized_ms``."""
    samples = samples_for(cnn(), SAMPLES), samples_for(cnn(), SAMPLES, seed=2)
    config = {"objective": asked, "outputs": {"logits": "values"}, "accuracy": {"metric": "cosine"}}
    return run_job(folder, cnn(), *samples, config=config, timer=FakeTimer(quantized_ms))


@pytest.mark.parametrize("asked", mostly_long([{"min_speedup": 1.5}, {"max_latency_ms": 1.25}]))
def test_the_most_accurate_engine_that_is_fast_enough_ships(asked: dict[str, float], tmp_path: Path) -> None:
    finished = job(tmp_path, **asked)
    assert finished.result["outcome"] == "improved"
    assert (objective(finished)["is_reached"], *(objective(finished)[key] for key in asked)) == (True, *asked.values())
    scores = [trial.on_all.score for trial in trials_of(finished) if trial.low_layers and trial.on_all is not None]
    assert finished.chosen["accuracy"] == pytest.approx(max(scores))  # every engine is fast enough here
    samples = samples_for(cnn(), SAMPLES, seed=2)
    (engine,), (own,) = plain_outputs(finished.engine, samples, 1), plain_outputs(finished.model_bytes, samples, 1)
    cosines = (engine * own).sum(axis=1) / np.linalg.norm(engine, axis=1) / np.linalg.norm(own, axis=1)
    assert finished.chosen["accuracy"] == pytest.approx(cosines.mean(), abs=1e-5)  # scores are means of float32 products
    assert str(finished.result["reason"]).startswith("The most accurate engine that ")


def test_its_verdict_is_at_the_tightest_budget_that_it_keeps(tmp_path: Path) -> None:
    finished = job(tmp_path, min_speedup=1.5)
    offers = cast(Json, finished.result["offers"])
    (own,) = [one for one in cast(list[Json], offers["engines"]) if cast(Json, one["file"])["name"] == "engine.onnx"]
    kept = cast(Json, own["keeps"])["min_relative"]
    assert cast(float, finished.verdict["budget"]) == pytest.approx(1.0 - cast(float, kept))
    assert cast(float, finished.verdict["probability_over_budget"]) <= 0.5
    assert not any(row["is_asked"] for row in cast(list[Json], offers["budgets"]))
    assert cast(Json, finished.report["config"])["objective"] == {"min_speedup": 1.5, "max_latency_ms": None}


@pytest.mark.long
def test_where_nothing_is_fast_enough_the_baseline_is_kept_and_the_fastest_can_be_had(tmp_path: Path) -> None:
    finished = job(tmp_path, min_speedup=5.0)
    assert finished.result["outcome"] == "baseline_kept"
    assert objective(finished)["is_reached"] is False
    assert "No engine is at least 5x as fast as the baseline: the fastest of" in str(finished.result["reason"])
    assert finished.engine.read_bytes() == finished.model_bytes
    (fastest, *_) = cast(list[Json], cast(Json, finished.result["offers"])["engines"])
    assert fastest["speedup"] == 2.0
    ref = finished.outcome.artifacts[str(cast(Json, fastest["file"])["name"])]
    assert plain_outputs(finished.path(ref), samples_for(cnn(), 4), 1)
    assignment = json.loads(finished.path(finished.outcome.artifacts[str(fastest["assignment"])]).read_text())
    assert "int8" in assignment.values()


def test_a_baseline_that_is_fast_enough_is_the_answer_at_once(tmp_path: Path) -> None:
    finished = job(tmp_path, max_latency_ms=3.0)
    assert (finished.result["outcome"], objective(finished)["is_reached"]) == ("baseline_kept", True)
    assert [trial.low_layers for trial in trials_of(finished)] == [0]
    assert str(finished.result["reason"]).startswith("The baseline itself is fast enough, 2 ms a call")


@pytest.mark.long
@needs_builder
def test_predicted_latencies_are_searched_the_same_way(tmp_path: Path) -> None:
    config = {**SMALL_CACHE, "precisions": ["int8"], "accuracy": {"metric": "cosine"}, "objective": {"min_speedup": 1.3}}
    finished = run_job(tmp_path, wide(), config=config)
    assert (finished.result["outcome"], objective(finished)["is_reached"]) == ("improved", True)
    assert cast(float, cast(Json, finished.result["predicted_speedup"])["value"]) >= 1.3
    offers = cast(Json, finished.result["offers"])
    assert "x predicted" in str(offers["in_words"])
    engines = cast(list[Json], offers["engines"])
    assert all(one["mad"] is None for one in engines)
    assert finished.engine.name == "engine.plan"
    for one in engines:
        name = str(cast(Json, one["file"])["name"])
        assert name == "engine.plan" or finished.path(finished.outcome.artifacts[name]).stat().st_size > 0
