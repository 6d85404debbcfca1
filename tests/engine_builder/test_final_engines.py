"""Which engines are judged where the search built at a lower level than the one that ships."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

from calibration.codec import json_from_value, value_from_json
from engine_builder.config import config_from_json
from engine_builder.errors import BuildError, StageMemoryError
from engine_builder.pipeline import JobRequest, optimize
from engine_builder.search.trial import Trial
from tests.engine_builder.fake_job import BASELINE, CALIBRATION, MODEL, REBUILT_BYTES, FakeStages, Watcher
from tests.engine_builder.search.fake_world import FakeWorld

HALFWAY = FakeWorld((0.0001,) * 16, budget=0.00085)
REBUILT: dict[str, object] = {"builder": {"search_optimization_level": 1}}


def asked(**config: object) -> JobRequest:
    return JobRequest(MODEL, CALIBRATION, None, config_from_json({"accuracy": {"metric": "top1", "min_relative": 0.999}, **config}))


def run(stages: FakeStages, request: JobRequest) -> None:
    optimize(request, stages, Watcher())


def reported(stages: FakeStages) -> tuple[Trial, ...]:
    return value_from_json(tuple[Trial, ...], stages.request("report")["trials"])


def test_equal_levels_judge_the_engines_of_the_search() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(builder={"optimization_level": 5}))
    assert stages.names("baseline") == stages.names("rebuild") == []


def test_a_lower_level_of_the_search_has_the_baseline_and_every_finalist_built_again() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(**REBUILT))
    searched = FakeStages(HALFWAY)
    run(searched, asked())
    wanted = [trial.fingerprint for trial in value_from_json(tuple[Trial, ...], searched.request("verdict")["finalists"])]
    assert len(wanted) > 1
    assert stages.names("baseline") == ["final/baseline"]
    assert stages.names("rebuild") == [f"final/{name}" for name in wanted]
    judged = value_from_json(tuple[Trial, ...], stages.request("verdict")["finalists"])
    assert [trial.fingerprint for trial in judged] == wanted
    assert {trial.size_bytes for trial in judged} == {REBUILT_BYTES}
    for name in ("verdict", "report", *stages.names("rebuild")):
        assert cast(Mapping[str, str], stages.request(name)["model"])["file"] == "final.plan"
        assert cast(Mapping[str, str], stages.request(name)["inspection"])["file"] == "final.json"
    assert stages.request("report")["finalists"] == stages.request("verdict")["finalists"]
    assert {trial.size_bytes for trial in reported(stages)} == {1000}
    spans = [span for _, _, _, span in stages.calls]
    assert all(one[1] <= other[0] + 1e-12 for one, other in itertools.pairwise(spans))


def test_a_finalist_that_cannot_be_built_at_the_final_level_is_none_and_is_noted() -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        is_first = stage == "rebuild" and cast(Mapping[str, object], request["finalist"])["low_layers"] == 8
        return StageMemoryError("too large", fix="none") if is_first else None

    stages = FakeStages(HALFWAY, failure)
    run(stages, asked(**REBUILT))
    judged = value_from_json(tuple[Trial, ...], stages.request("verdict")["finalists"])
    assert len(judged) == len(stages.names("rebuild")) - 1
    assert 8 not in {trial.low_layers for trial in judged}
    (note,) = cast(Sequence[str], stages.request("report")["notes"])
    assert "could not be built at optimization level 3: too large" in note


def test_a_baseline_that_cannot_be_built_at_the_final_level_leaves_the_engines_of_the_search() -> None:
    stages = FakeStages(HALFWAY, lambda stage, request: BuildError("no room", fix="none") if stage == "baseline" else None)
    run(stages, asked(**REBUILT))
    assert stages.names("rebuild") == []
    judged = value_from_json(tuple[Trial, ...], stages.request("verdict")["finalists"])
    assert {trial.size_bytes for trial in judged} == {1000}
    assert stages.request("verdict")["model"] == json_from_value(BASELINE)
    (note,) = cast(Sequence[str], stages.request("report")["notes"])
    assert "the engines of the search, built at 1, were judged: no room" in note


def test_a_baseline_that_is_kept_was_built_at_the_final_level_too() -> None:
    stages = FakeStages(FakeWorld((0.01,) * 16))
    run(stages, asked(**REBUILT))
    assert stages.request("verdict")["finalists"] == []
    assert (stages.names("baseline"), stages.names("rebuild")) == (["final/baseline"], [])
    assert cast(Mapping[str, str], stages.request("report")["model"])["file"] == "final.plan"
