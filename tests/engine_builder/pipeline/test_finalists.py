"""Which engines are judged where the search built at a lower level than the one that ships."""

from __future__ import annotations

import itertools

import pytest

from engine_builder.errors import BuildError, EngineError, StageCancelledError, StageMemoryError
from engine_builder.stage_io.engines import RebuildRequest
from tests.engine_builder.fake_job import (
    BASELINE,
    FINAL_BASELINE,
    FINAL_INSPECTION,
    HALFWAY,
    REBUILT_BYTES,
    FakeStages,
    asked,
    reported,
    run,
)
from tests.engine_builder.search.fake_world import FakeWorld

REBUILT: dict[str, object] = {"builder": {"search_optimization_level": 1}}


def test_equal_levels_judge_the_engines_of_the_search() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(builder={"optimization_level": 5}))
    assert stages.names("baseline") == stages.names("rebuild") == []


def test_a_lower_level_of_the_search_has_the_baseline_and_every_finalist_built_again() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(**REBUILT))
    searched = FakeStages(HALFWAY)
    run(searched, asked())
    wanted = [trial.fingerprint for trial in searched.judged.finalists]
    assert len(wanted) > 1
    assert stages.names("baseline") == ["final/baseline"]
    assert stages.names("rebuild") == [f"final/{name}" for name in wanted]
    judged = stages.judged.finalists
    assert [trial.fingerprint for trial in judged] == wanted
    assert {trial.size_bytes for trial in judged} == {REBUILT_BYTES}
    jobs = [stages.judged.job, stages.reported.job, *(request.job for request in stages.requests(RebuildRequest))]
    assert {(job.baseline, job.inspection) for job in jobs} == {(FINAL_BASELINE, FINAL_INSPECTION)}
    assert stages.reported.finalists == judged
    assert {trial.size_bytes for trial in reported(stages)} == {1000}
    spans = [call.span for call in stages.calls]
    assert all(one[1] <= other[0] + 1e-12 for one, other in itertools.pairwise(spans))


def test_a_finalist_that_cannot_be_built_at_the_final_level_is_none_and_is_noted() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        is_first = isinstance(request, RebuildRequest) and request.finalist.low_layers == 8
        return StageMemoryError("too large", fix="none") if is_first else None

    stages = FakeStages(HALFWAY, failure)
    run(stages, asked(**REBUILT))
    judged = stages.judged.finalists
    assert len(judged) == len(stages.names("rebuild")) - 1
    assert 8 not in {trial.low_layers for trial in judged}
    (note,) = stages.reported.notes
    assert "could not be built at optimization level 3: too large" in note


def test_a_baseline_that_cannot_be_built_at_the_final_level_leaves_the_engines_of_the_search() -> None:
    stages = FakeStages(HALFWAY, lambda stage, request: BuildError("no room", fix="none") if stage == "baseline" else None)
    run(stages, asked(**REBUILT))
    assert stages.names("rebuild") == []
    judged = stages.judged.finalists
    assert {trial.size_bytes for trial in judged} == {1000}
    assert stages.judged.job.baseline == BASELINE
    (note,) = stages.reported.notes
    assert "the engines of the search, built at 1, were judged: no room" in note


def test_a_baseline_that_is_kept_was_built_at_the_final_level_too() -> None:
    stages = FakeStages(FakeWorld((0.01,) * 16))
    run(stages, asked(**REBUILT))
    assert stages.judged.finalists == ()
    assert (stages.names("baseline"), stages.names("rebuild")) == (["final/baseline"], [])
    assert stages.reported.job.baseline == FINAL_BASELINE


def test_what_is_built_but_does_not_run_at_the_final_level_is_noted_too() -> None:
    error = EngineError("the GPU stayed in use", fix="none")
    stages = FakeStages(HALFWAY, lambda stage, request: error if stage == "rebuild" else None)
    run(stages, asked(**REBUILT))
    assert stages.judged.finalists == ()
    notes = stages.reported.notes
    assert len(notes) == len(stages.names("rebuild"))
    assert all(note.endswith("the GPU stayed in use") for note in notes)


@pytest.mark.parametrize("stage", ["baseline", "rebuild"])
def test_a_job_that_is_cancelled_in_a_final_build_ends_at_once(stage: str) -> None:
    stages = FakeStages(HALFWAY, lambda kind, request: StageCancelledError("cancelled", fix="none") if kind == stage else None)
    with pytest.raises(StageCancelledError):
        run(stages, asked(**REBUILT))
    assert stages.calls[-1].stage == stage
    assert len(stages.names(stage)) == 1
