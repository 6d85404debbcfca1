"""Whole jobs for tensorrt-rtx where FP16 alone misses the budget: the baseline gets a float fallback, and the verdict is about what is
shipped.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from calibration.codec import value_from_json
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Runner
from engine_builder.config.config import Config
from engine_builder.engines.factory import building_backend
from engine_builder.errors import BuildError, RefusedModelError, UnsupportedModelError
from engine_builder.pipeline.stage_table import BASELINE
from engine_builder.records.inspection import Inspection
from engine_builder.stage_io.engines import BaselineRequest, BaselineResult
from engine_builder.stages.baseline import baseline
from engine_builder.workspace.workspace import StageContext
from tests.driver import Finished, ranged, run_job, trials_of
from tests.fallback_models import cancelling, escaping, harmless, overflowing
from tests.model_text import cnn

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
TIGHT: dict[str, Any] = {
    "target": "tensorrt-rtx",
    "gpu": "RTX 4090",
    "precisions": ["int8"],
    "accuracy": {"metric": "cosine", "min_relative": 0.999},
    "search": {"max_trials": 2},
}


def known(finished: Finished) -> Inspection:
    built = value_from_json(BaselineResult, finished.driver.results["baseline"]["result"])
    return finished.driver.workspace.read_value(Inspection, built.inspection)


@pytest.fixture(scope="module")
def fallback_job(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_job(tmp_path_factory.mktemp("repaired"), cancelling(), config=TIGHT)


def test_the_block_that_loses_gets_fp32_and_all_else_stays_in_fp16(fallback_job: Finished) -> None:
    assert fallback_job.baseline["precisions"] == {"fp16": 3, "fp32": 1}
    assert known(fallback_job).baseline_precisions == dict.fromkeys(("first", "third", "fourth"), Precision.FP16) | {
        "second": Precision.FP32
    }
    assert set(known(fallback_job).baseline.float_nodes) == {"second", "up", "down", "relu2"}


def test_the_verdict_is_met_by_the_fallback_baseline(fallback_job: Finished) -> None:
    attempts = cast(Sequence[Mapping[str, object]], cast(Mapping[str, object], fallback_job.report["baseline_repair"])["attempts"])
    assert cast(float, attempts[0]["score"]) < 0.95
    assert cast(float, fallback_job.baseline["accuracy"]) > 0.99999
    assert fallback_job.verdict["answer"] == "met_on_sample"  # 16 samples cannot say more
    first = trials_of(fallback_job)[0]
    assert first.on_all is not None
    assert first.on_all.met


def test_the_plan_runs_the_fallback_block_in_fp32_and_any_other_no_lower_than_asked(fallback_job: Finished) -> None:
    rows = cast(Sequence[Mapping[str, object]], fallback_job.report["baseline_reached"])
    assert {str(row["layer"]): row["asked"] for row in rows} == {"first": "fp16", "second": "fp32", "third": "fp16", "fourth": "fp16"}
    assert {row["got"] for row in rows if row["layer"] == "second"} == {"fp32"}
    assert {row["got"] for row in rows} == {"fp16", "fp32"}  # the builder fuses small products and takes the wider type for them
    assert all(row["reason"] for row in rows if row["asked"] != row["got"])


def test_quantized_trials_keep_the_fallback_block_where_they_do_not_quantize_it(fallback_job: Finished) -> None:
    quantized = [trial for trial in trials_of(fallback_job) if trial.low_layers and trial.failure is None]
    assert quantized
    for trial in quantized:
        assert trial.on_all is not None
        assert trial.on_all.score > 0.97  # in FP16 the difference of large numbers alone would take it to 0.9


def test_the_report_says_what_fell_back_and_to_what(fallback_job: Finished) -> None:
    artifacts = fallback_job.outcome.artifacts
    page = fallback_job.path(artifacts["report.html"]).read_text(encoding="utf-8")
    assert "The baseline needed a float fallback" in page
    assert "fp16 with 1 of 4 blocks in fp32 (kept)" in page
    assert "fp16 with 1 of 4 blocks in fp32 (from second on) is the baseline" in fallback_job.notes
    blocks = cast(Sequence[Mapping[str, object]], cast(Mapping[str, object], fallback_job.report["baseline_repair"])["blocks"])
    assert (blocks[0]["layer"], blocks[0]["precision"]) == ("second", "fp32")
    assert {block["precision"] for block in blocks[1:]} == {"fp16"}
    assert "fp16 with 1 of 4 blocks in fp32" in str(fallback_job.baseline["repaired"])
    assignment = json.loads(fallback_job.path(artifacts["assignment.json"]).read_text(encoding="utf-8"))
    assert assignment["second"] == "fp32" or fallback_job.result["outcome"] == "improved"


def baseline_of(folder: Path, model: onnx.ModelProto, accuracy: Mapping[str, object]) -> tuple[Inspection, onnx.ModelProto, float]:
    """Return what the stage ``baseline`` found out, its explicit model, and the mean score of its engine."""
    driver, basics = ranged(folder, model, config={**TIGHT, "accuracy": accuracy})
    inspection = driver.workspace.read_value(Inspection, driver.run(BASELINE, BaselineRequest(basics)).inspection)
    scores = driver.workspace.read_arrays(inspection.baseline.scores)["scores"]
    return inspection, onnx.load_model(driver.workspace.root / "baseline" / "model.explicit.onnx"), float(np.mean(np.asarray(scores)))


def test_where_fp16_meets_the_budget_nothing_changes(tmp_path: Path) -> None:
    found, explicit, score = baseline_of(tmp_path, harmless(), TIGHT["accuracy"])
    assert score > 0.999
    assert (found.baseline.fallback, found.baseline.achieved) == (None, None)
    assert set(found.baseline_precisions.values()) == {Precision.FP16}
    assert not any("misses" in note for note in found.notes)
    assert {tensor.data_type for tensor in explicit.graph.initializer} == {onnx.TensorProto.FLOAT16}


@pytest.mark.long
def test_what_fp16_cannot_hold_stays_in_float32_without_a_fallback(tmp_path: Path) -> None:
    found, _, score = baseline_of(tmp_path, overflowing(), TIGHT["accuracy"])
    assert score > 0.999
    assert found.baseline.fallback is None
    assert {"up", "down"} <= set(found.baseline.float_nodes)
    assert "first" not in found.baseline.float_nodes


def test_a_budget_that_nothing_in_16_bits_meets_ends_in_fp32(tmp_path: Path) -> None:
    found, explicit, score = baseline_of(tmp_path, cnn("N,1,8,8"), {"metric": "nmse", "max_nmse": 1e-12})
    assert score <= 1e-12
    assert found.baseline.fallback is not None
    assert found.baseline.fallback.kept == "fp32"
    assert set(found.baseline_precisions.values()) == {Precision.FP32}
    assert "fp32 is the baseline" in found.notes[-1]
    assert not any(node.op_type == "Cast" for node in explicit.graph.node)


class Crowded:
    """The target ``tensorrt-rtx`` on a machine that has room for one open engine."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._last: Crowded.Alone | None = None

    class Alone:
        """A runner that knows whether it is open."""

        def __init__(self, inner: Runner) -> None:
            self.run, self._close, self.is_open = inner.run, inner.close, True

        def close(self) -> None:
            self.is_open = False
            self._close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def open(self, engine: Path, *, threads: int) -> Runner:
        if self._last is not None and self._last.is_open:
            raise BuildError("no room for two engines", fix="none")
        self._last = self.Alone(self._inner.open(engine, threads=threads))
        return self._last


@pytest.mark.long
def test_fallback_baselines_that_cannot_be_open_at_once_are_kept_without_latencies(tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, cancelling(), config=TIGHT)
    context = StageContext(driver.workspace, tmp_path, lambda fraction, message: None)

    def building(config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        return cast(Backend, Crowded(building_backend(config, context, final=final)))

    inspection = driver.workspace.read_value(Inspection, baseline(BaselineRequest(basics), context, building=building).inspection)
    assert inspection.baseline.fallback is not None
    assert inspection.baseline.fallback.fits
    assert {attempt.latency_ms for attempt in inspection.baseline.fallback.attempts} == {None}


@pytest.mark.long
def test_values_that_fp16_does_not_hold_between_layers_leave_quantized_trials_that_run(tmp_path: Path) -> None:
    finished = run_job(tmp_path, escaping(), config={**TIGHT, "accuracy": {"metric": "cosine", "min_relative": 0.99}})
    trials = trials_of(finished)
    assert cast(float, finished.baseline["accuracy"]) > 0.99
    assert finished.baseline["precisions"] != {"fp16": 4}
    assert [trial.failure for trial in trials] == [None] * len(trials)
    assert any(trial.low_layers for trial in trials)


class Slow:
    """The target ``tensorrt-rtx`` where each build takes a quarter of an hour."""

    def __init__(self, inner: Backend, now: list[float]) -> None:
        self._inner, self._now = inner, now

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def build(self, explicit: Path, output: Path, **more: Any) -> object:
        self._now[0] += 900.0
        return self._inner.build(explicit, output, **more)


def test_no_fallback_is_built_that_an_hours_stage_has_no_time_for_and_fp32_is_what_is_left(tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, cnn("N,1,8,8"), config={**TIGHT, "accuracy": {"metric": "nmse", "max_nmse": 1e-12}})
    context = StageContext(driver.workspace, tmp_path, lambda fraction, message: None)
    now = [0.0]

    def building(config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        return cast(Backend, Slow(building_backend(config, context, final=final), now))

    result = baseline(BaselineRequest(basics), context, building=building, clock=lambda: now[0])
    fallback = driver.workspace.read_value(Inspection, result.inspection).baseline.fallback
    assert fallback is not None
    assert (fallback.kept, now[0]) == ("fp32", 2700.0)  # FP16, BF16, FP32
    left_out = [attempt.failure for attempt in fallback.attempts if attempt.failure is not None]
    assert left_out
    assert all("900 seconds, which are not left" in failure for failure in left_out)


class Refusing:
    """The target ``tensorrt-rtx`` with a builder that refuses some models: ``refuses`` returns the names that it gives, None to build."""

    def __init__(self, inner: Backend, refuses: Callable[[onnx.ModelProto], tuple[str, ...] | None]) -> None:
        self._inner, self._refuses = inner, refuses

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def build(self, explicit: Path, output: Path, **more: Any) -> object:
        named = self._refuses(onnx.load_model(explicit))
        if named is not None:
            raise RefusedModelError(f"no {', '.join(named) or 'such model'}", fix="none", nodes=named)
        return self._inner.build(explicit, output, **more)


def in_16_bits(model: onnx.ModelProto) -> set[str]:
    """Return the products that read a weight of 16 bits."""
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type != onnx.TensorProto.FLOAT}
    return {node.name for node in model.graph.node if node.op_type == "MatMul" and set(node.input) & halves}


def refused_baseline(folder: Path, refuses: Callable[[onnx.ModelProto], tuple[str, ...] | None]) -> Inspection:
    driver, basics = ranged(folder, harmless(), config=TIGHT)
    context = StageContext(driver.workspace, folder, lambda fraction, message: None)

    def building(config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        return cast(Backend, Refusing(building_backend(config, context, final=final), refuses))

    return driver.workspace.read_value(Inspection, baseline(BaselineRequest(basics), context, building=building).inspection)


def test_nodes_that_the_builder_refuses_by_name_are_in_fp32(tmp_path: Path) -> None:
    inspection = refused_baseline(tmp_path, lambda model: ("second",) if "second" in in_16_bits(model) else None)
    assert inspection.baseline.fallback is None
    assert inspection.baseline_precisions == dict.fromkeys(("first", "third", "fourth"), Precision.FP16) | {"second": Precision.FP32}


def test_a_baseline_that_the_builder_refuses_without_a_name_gets_a_fallback(tmp_path: Path) -> None:
    inspection = refused_baseline(tmp_path, lambda model: () if "second" in in_16_bits(model) else None)
    assert inspection.baseline.fallback is not None
    assert inspection.baseline.fallback.fits
    assert inspection.baseline_precisions["second"] is Precision.FP32
    assert inspection.baseline.fallback.attempts[0].failure == "no such model"
    assert inspection.notes[-1].startswith("the builder refuses the baseline in fp16: ")


def test_a_model_that_the_builder_refuses_in_float32_too_is_the_users_to_change(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'tensorrt-rtx': its builder refuses the model in fp16 and in fp32: no such model"):
        refused_baseline(tmp_path, lambda model: ())
