"""A plan without its weights is asked for where the user wants one, and costs nothing else where it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from engine_builder.errors import EngineError
from engine_builder.records.stripped_plan import StrippedPlan
from engine_builder.stage_io.engines import StripRequest, StripResult
from tests.engine_builder.fake_job import MODEL, asked, run
from tests.engine_builder.pipeline.test_decide import SPEED, WORLD, Timed

WANTED: Mapping[str, object] = {"builder": {"strip_weights": True}}


@dataclasses.dataclass
class Strips(Timed):
    """Stages that build plans without their weights, of 10 bytes, whose engines take 1 ms."""

    def strip(self, name: str, request: StripRequest) -> StripResult:
        plan = StrippedPlan(100, None, size_bytes=10)
        chosen = request.chosen
        if chosen is None:
            return StripResult(plan, dataclasses.replace(request.judged, engine=MODEL), None)
        return StripResult(plan, dataclasses.replace(request.judged, engine=MODEL, ratio=0.1), dataclasses.replace(chosen, loss=0.25))


def test_nothing_is_stripped_that_was_not_asked_for() -> None:
    stages = Strips(WORLD)
    run(stages, asked(**SPEED))
    assert stages.names("strip") == []
    assert stages.reported.stripped is None


def test_the_report_gets_what_ships() -> None:
    stages = Strips(WORLD)
    run(stages, asked(**SPEED, **WANTED))
    assert stages.names("strip") == ["strip"]
    assert stages.reported.stripped == StrippedPlan(100, None, size_bytes=10)
    assert (stages.reported.verdict.engine, stages.reported.verdict.ratio) == (MODEL, 0.1)
    shipped = [trial for trial in stages.reported.finalists if trial.fingerprint == stages.reported.verdict.chosen]
    assert [trial.loss for trial in shipped] == [0.25]
    assert all(trial.loss != 0.25 for trial in stages.reported.trials)  # the search is told as it was


def test_with_an_objective_it_is_judged_at_the_budget_that_the_verdict_was_at_and_alone() -> None:
    stages = Strips(WORLD)
    run(stages, asked(**SPEED, **WANTED))
    (request,) = stages.requests(StripRequest)
    assert request.job.config.accuracy.min_relative == 0.907
    assert [trial.fingerprint for trial in request.finalists] == [request.judged.chosen]
    assert len(stages.reported.finalists) > 1
    assert stages.reported.job.config.accuracy.min_relative == asked(**SPEED).config.accuracy.min_relative


def test_a_baseline_that_is_kept_is_stripped_too() -> None:
    stages = Strips(WORLD, slower=100)
    run(stages, asked(**SPEED, **WANTED))
    (request,) = stages.requests(StripRequest)
    assert request.chosen is None
    assert stages.reported.stripped is not None


@pytest.mark.parametrize("slower", [0, 100])
def test_one_that_fails_leaves_the_whole_plan_and_says_why(slower: int) -> None:
    def fails(stage: str, request: object) -> Exception | None:
        return EngineError("2 weights are missing", fix="see") if stage == "strip" else None

    stages, plain = Strips(WORLD, failure=fails, slower=slower), Strips(WORLD, slower=slower)
    run(stages, asked(**SPEED, **WANTED))
    run(plain, asked(**SPEED))
    assert stages.reported.verdict == plain.reported.verdict
    assert stages.reported.finalists == plain.reported.finalists
    assert stages.reported.stripped is not None
    assert (stages.reported.stripped.why_not, stages.reported.stripped.ships) == ("2 weights are missing", False)
    assert stages.reported.stripped.shipped_bytes == stages.reported.stripped.whole_bytes
