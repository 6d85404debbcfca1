"""What the pipeline offers for other budgets: which engines, with which latency, and at what cost."""

from __future__ import annotations

import dataclasses

from calibration.accuracy.metrics import BudgetKey
from calibration.codec import json_from_value
from engine_builder.errors import EngineError
from engine_builder.pipeline.offer_front import LEAST_SECONDS, SHARE_OF_JOB
from engine_builder.search.measured_front import MAX_OFFERED
from engine_builder.stage_io.engines import VerdictRequest, VerdictResult
from engine_builder.stage_io.offers import OffersRequest, OffersResult
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.fake_job import HALFWAY, REBUILT_BYTES, STAGE_SECONDS, FakeStages, asked, run
from tests.engine_builder.search.fake_world import FakeWorld


def offered(stages: FakeStages) -> OffersRequest:
    (request,) = stages.requests(OffersRequest)
    return request


def test_engines_inside_and_outside_the_budget_are_offered_safest_first() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    engines = offered(stages).engines
    assert 1 < len(engines) <= MAX_OFFERED
    assert [trial.low_layers for trial in engines] == sorted(trial.low_layers for trial in engines)
    assert engines[-1].low_layers == 16  # every layer: outside the job's budget of 8 layers
    assert any(trial.met for trial in engines)


def test_building_them_may_take_a_small_share_of_the_job() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    before = len(stages.calls) - 2  # the offers and the report
    assert SHARE_OF_JOB <= 0.1
    assert offered(stages).seconds == max(SHARE_OF_JOB * STAGE_SECONDS * before, LEAST_SECONDS)


def test_in_a_long_job_the_share_counts_in_a_short_one_the_least() -> None:
    def seconds(stage_seconds: float) -> float:
        stages = FakeStages(HALFWAY, seconds=stage_seconds)
        run(stages)
        return offered(stages).seconds

    assert seconds(0.001) == LEAST_SECONDS
    assert seconds(1000.0) > LEAST_SECONDS


def test_a_finalist_is_offered_as_it_ships_with_its_final_timing() -> None:
    class Timed(FakeStages):
        def verdict(self, name: str, request: VerdictRequest) -> VerdictResult:
            best = request.finalists[-1].fingerprint
            spread = {best: RelativeLatency(0.6, 0.002)}
            return dataclasses.replace(super().verdict(name, request), chosen=best, spread=spread)

    stages = Timed(HALFWAY)
    run(stages, asked(builder={"search_optimization_level": 1}))
    request = offered(stages)
    (shipped,) = [trial for trial in request.engines if trial.fingerprint == request.shipped]
    assert shipped.size_bytes == REBUILT_BYTES
    assert request.latency[shipped.fingerprint] == RelativeLatency(0.6, 0.002)
    others = [trial for trial in request.engines if trial is not shipped]
    assert all(trial.latency is not None and request.latency[trial.fingerprint].ratio == trial.latency.ratio for trial in others)


def test_an_engine_is_offered_by_the_worse_order_of_the_samples_as_it_was_judged() -> None:
    worse = FileRef("verdict/shuffled.npz", "0" * 64)

    class Reordered(FakeStages):
        def verdict(self, name: str, request: VerdictRequest) -> VerdictResult:
            reordered = {request.finalists[-1].fingerprint: worse}
            return dataclasses.replace(super().verdict(name, request), reordered=reordered)

    stages = Reordered(HALFWAY)
    run(stages)
    judged = stages.requests(VerdictRequest)[-1].finalists[-1]
    by_worse = [trial.fingerprint for trial in offered(stages).engines if trial.scores == worse]
    assert by_worse == [judged.fingerprint]


def test_without_a_faster_engine_nothing_is_asked() -> None:
    stages = FakeStages(FakeWorld((0.0001,) * 4, gains=(-0.1,) * 4))
    run(stages)
    assert stages.names("offers") == []
    assert stages.reported.offers == OffersResult()


def test_a_failure_costs_the_offers_and_not_the_job() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return EngineError("no memory", fix="none") if stage == "offers" else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert stages.reported.offers == OffersResult()
    assert stages.reported.notes[-1] == "what other budgets would give could not be found out: no memory"


def test_the_request_names_no_other_budget_key_than_the_jobs() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(accuracy={"max_nmse": 0.001}))
    accuracy = json_from_value(offered(stages).job.config.accuracy)
    assert isinstance(accuracy, dict)
    assert [key for key in BudgetKey if accuracy[key] is not None] == [BudgetKey.MAX_NMSE]
