"""What may be asked for next is found by asking copies of the search, and asking changes nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.codec import value_from_json
from engine_builder.pipeline.ahead.preparing import PREPARATIONS
from engine_builder.pipeline.optimize import JobRequest, optimize
from engine_builder.stage_io.engines import TrialRequest
from tests.engine_builder.fake_job import HALFWAY, FakeStages, Watcher, asked, run
from tests.engine_builder.search.fake_world import FakeWorld, rising

LOSSLESS = FakeWorld((0.0,) * 16)
HOPELESS = FakeWorld((0.01,) * 16)
FAST_ENOUGH: Mapping[str, object] = {"objective": {"min_speedup": 1.2}, "accuracy": {"metric": "top1"}}


@dataclasses.dataclass
class Seer(Watcher):
    """Asks at once, before each trial, what may come after it."""

    seen: list[list[str]] = dataclasses.field(default_factory=list)

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        self.seen.append([key_of(json.loads(json.dumps(request))) or "" for request in requests()])


def key_of(request: Mapping[str, object]) -> str | None:
    part = PREPARATIONS["trial"].part(request)
    return None if part is None else part.key


def foreseen_and_asked(world: FakeWorld, job: JobRequest | None = None) -> tuple[list[list[str]], list[str | None], FakeStages]:
    """Return what was foreseen before each trial, and which was asked for, by content."""
    keys: list[str | None] = []
    stages, seer = FakeStages(world), Seer()

    def driver(name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        if stage == "trial":
            keys.append(key_of(request))
        return stages(name, stage, request, span)

    optimize(job or asked(), driver, seer)
    return seer.seen, keys, stages


def hits(seen: list[list[str]], keys: list[str | None], most: int) -> list[bool]:
    """Return of each trial but the first whether it was among so many that were foreseen right before it."""
    return [key in before[:most] for before, key in zip(seen, keys[1:], strict=False)]


def test_before_the_baseline_runs_the_one_format_engine_is_foreseen() -> None:
    seen, keys, _ = foreseen_and_asked(HALFWAY)
    assert seen[0][0] == keys[1]


def test_of_a_bisection_the_engine_of_either_answer_is_foreseen() -> None:
    seen, keys, stages = foreseen_and_asked(HALFWAY)
    orders = [request.proposed_by for request in stages.requests(TrialRequest)]
    bisected = [found for found, order, before in zip(hits(seen, keys, 2), orders[1:], orders, strict=False) if order == before]
    assert len(bisected) >= 4
    assert all(bisected)


def test_what_needs_an_answer_that_nobody_has_yet_is_not_guessed() -> None:
    """After the one-format engine come corrections, the analysis or a prediction: nothing is known of what these give."""
    seen, _, _ = foreseen_and_asked(HALFWAY)
    assert seen[1] == []


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 12), st.floats(0.0, 1.0))
def test_asking_changes_no_trial_of_any_search(count: int, share: float) -> None:
    world = FakeWorld(rising(count, 0.01), budget=0.01 * share)
    stages = FakeStages(world)
    run(stages)
    _, _, watched = foreseen_and_asked(world)
    assert watched.requests(TrialRequest) == stages.requests(TrialRequest)
    assert watched.reported == stages.reported


@pytest.mark.parametrize("world", [HALFWAY, LOSSLESS, HOPELESS], ids=["halfway", "lossless", "hopeless"])
@pytest.mark.parametrize(
    "config",
    [{}, {"search": {"max_trials": 4}}, FAST_ENOUGH, {"accuracy": {"confidence": 0.95}}, {"analysis": "full"}],
    ids=str,
)
def test_each_engine_is_foreseen_once_and_none_that_was_tried(world: FakeWorld, config: Mapping[str, object]) -> None:
    seen, keys, _ = foreseen_and_asked(world, asked(**config))
    for index, before in enumerate(seen):
        assert len(set(before)) == len(before)
        assert not set(before) & set(keys[: index + 1])


def test_where_an_engine_must_be_fast_enough_the_answers_are_those_of_the_clock() -> None:
    seen, keys, _ = foreseen_and_asked(HALFWAY, asked(**FAST_ENOUGH))
    found = hits(seen, keys, 3)
    assert sum(found) >= len(found) - 2


def test_the_same_engine_has_one_key_whatever_proposed_it_and_whatever_its_time_is_compared_with() -> None:
    stages = FakeStages(HALFWAY)
    keys = set()
    plain: dict[str, object] = {}

    def driver(name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        if stage == "trial" and request["precisions"] and not plain:
            plain.update(request)
        return stages(name, stage, request, span)

    optimize(asked(), driver, Watcher())
    for changed in ({}, {"proposed_by": "hessian"}, {"index": 77}, {"seconds_left": 3.0}, {"deciding": {"bounds": [0.5], "best": 0.6}}):
        keys.add(key_of({**plain, **changed}))
    assert len(keys) == 1
    asked_for = value_from_json(TrialRequest, plain)
    other = dict(list(asked_for.precisions.items())[:1])
    assert key_of({**plain, "precisions": {name: precision.value for name, precision in other.items()}}) not in keys


def test_the_baseline_and_the_folded_model_are_not_prepared() -> None:
    stages = FakeStages(HALFWAY)
    found: list[str | None] = []

    def driver(name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        if stage == "trial":
            found.append(key_of(request))
            found.append(key_of({**request, "proposed_by": "folded"}))
        return stages(name, stage, request, span)

    optimize(asked(), driver, Watcher())
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert set(found[3::2]) == {None}
