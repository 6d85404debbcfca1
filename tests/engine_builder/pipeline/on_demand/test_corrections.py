"""Corrections that cost something are measured when they can decide; after that every engine has them."""

from __future__ import annotations

import dataclasses

import pytest

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.backends.registry import backend_for
from engine_builder.config.config import config_from_json
from engine_builder.errors import StageCrashedError
from engine_builder.pipeline.on_demand.corrections import is_corrected_first
from engine_builder.records.assignment import corrected_fingerprint
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import PredictRequest, TrialRequest
from engine_builder.stage_io.measuring import BiasesRequest, CorrectRequest, CorrectResult, SensitivityRequest
from tests.engine_builder.fake_job import BIASES_FILE, HALFWAY, TABLE_FILE, FakeStages, asked, reported, run
from tests.engine_builder.search.fake_world import FakeWorld

CURED = FakeWorld((0.0,) * 16, budget=HALFWAY.budget)
CHANGED = tuple(LayerPrecision(layer, Precision.INT8) for layer in HALFWAY.layers)
CPU = backend_for("onnxruntime-cpu", None).capabilities


@dataclasses.dataclass
class Corrected(FakeStages):
    """Corrections that help every layer: engines with them lose nothing."""

    def correct(self, name: str, request: CorrectRequest) -> CorrectResult:
        return CorrectResult(TABLE_FILE, (), CHANGED)

    def trial(self, name: str, request: TrialRequest) -> Trial:
        world = CURED if request.job.calibrated.corrections == TABLE_FILE else self.world
        trial = world.trial(request.index, request.precisions, request.proposed_by)
        return dataclasses.replace(trial, fingerprint=name.removeprefix("trial/"))


def test_an_engine_that_misses_the_budget_is_built_again_with_corrections_and_no_layer_is_probed() -> None:
    stages = Corrected(HALFWAY)
    run(stages)
    assert [call.stage for call in stages.calls] == [
        "inspect", "ranges", "biases", "trial", "trial", "correct", "trial", "predict", "verdict", "offers", "report",
    ]  # fmt: skip
    _, without, corrected = reported(stages)
    assert corrected.fingerprint == corrected_fingerprint(without.fingerprint)
    assert (without.made_with, corrected.made_with) == (BIASES_FILE, None)
    assert [trial.fingerprint for trial in stages.judged.finalists] == [corrected.fingerprint]
    assert stages.judged.job.changed == CHANGED


def test_what_corrections_are_measured_with_and_what_is_measured_with_them() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    (first,) = stages.requests(BiasesRequest)
    (wanted,) = stages.requests(CorrectRequest)
    assert (first.of.corrections, wanted.of.corrections) == (None, BIASES_FILE)
    tables = [request.job.calibrated.corrections for request in stages.requests(TrialRequest)]
    assert tables == [BIASES_FILE] * 2 + [TABLE_FILE] * (len(tables) - 2)
    assert {request.of.corrections for request in stages.requests(SensitivityRequest)} == {TABLE_FILE}
    assert {request.job.calibrated.corrections for request in stages.requests(PredictRequest)} == {TABLE_FILE}
    assert stages.reported.are_corrections_left is False


def test_the_report_is_told_that_corrections_were_not_needed() -> None:
    stages = FakeStages(CURED)
    run(stages)
    assert stages.names("correct") == []
    assert stages.reported.are_corrections_left is True
    off = FakeStages(CURED)
    run(off, asked(calibration={"repair": False}))
    assert off.reported.are_corrections_left is False


def test_corrections_that_cannot_be_measured_cost_no_more_than_themselves() -> None:
    stages = FakeStages(HALFWAY, lambda kind, request: StageCrashedError("signal 11", fix="none") if kind == "correct" else None)
    run(stages)
    assert len(stages.names("correct")) == 1
    assert stages.reported.notes == ("the stage correct failed, so engines have corrected biases and no other corrections: signal 11",)
    assert {request.job.calibrated.corrections for request in stages.requests(TrialRequest)} == {BIASES_FILE}
    assert max(trial.low_layers for trial in reported(stages) if trial.met) == 8


@pytest.mark.parametrize("config", [{"analysis": "full"}, {"search": {"max_trials": 2}}, {"search": {"max_seconds": 2.0}}])
def test_who_wants_all_measured_or_leaves_no_room_gets_corrected_engines_at_once(config: dict[str, object]) -> None:
    stages = Corrected(HALFWAY)
    run(stages, asked(**config))
    names = [call.stage for call in stages.calls]
    assert names.index("correct") < names.index("trial")
    assert all(trial.made_with is None for trial in reported(stages))
    assert stages.judged.job.changed == ()  # no engine was another one before


def test_corrections_come_first_where_engines_are_dear_to_build_or_accuracy_is_searched_for() -> None:
    plain, fast = config_from_json({}), config_from_json({"objective": {"min_speedup": 1.5}})
    assert not is_corrected_first(plain, CPU, engines=2, seconds=10.0)
    assert is_corrected_first(fast, CPU, engines=2, seconds=10.0)
    assert is_corrected_first(plain, dataclasses.replace(CPU, builds_are_dear=True), engines=2, seconds=10.0)


def test_limits_that_leave_room_do_not_bring_corrections_first() -> None:
    roomy = config_from_json({"search": {"max_trials": 10, "max_seconds": 600.0}})
    assert not is_corrected_first(roomy, CPU, engines=2, seconds=10.0)
    assert is_corrected_first(roomy, CPU, engines=2, seconds=100.0)
    assert is_corrected_first(roomy, CPU, engines=9, seconds=10.0)
