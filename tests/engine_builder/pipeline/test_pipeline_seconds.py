"""What a job has spent: the recorded seconds of its stages, of those that failed too."""

from __future__ import annotations

from engine_builder.errors import StageTimeoutError
from engine_builder.pipeline.optimize import optimize
from engine_builder.stage_io.engines import TrialRequest
from tests.engine_builder.fake_job import HALFWAY, FakeStages, Replay, Watcher, asked


def test_the_seconds_of_a_failed_trial_count_and_are_the_same_in_a_replay() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        error = StageTimeoutError("too long", fix="none")
        error.seconds = 100.0
        return error if isinstance(request, TrialRequest) and request.precisions else None

    replay = Replay(FakeStages(HALFWAY, failure))
    first = optimize(asked(), replay, Watcher())
    assert replay.stages.reported.search.seconds > 300.0
    assert [trial.seconds for trial in replay.stages.reported.trials] == [1.0, 100.0, 100.0, 100.0]
    assert optimize(asked(), replay, Watcher()) == first
    limited = FakeStages(HALFWAY, failure)
    optimize(asked(search={"max_seconds": 150}), limited, Watcher())
    assert len(limited.names("trial")) == 2
