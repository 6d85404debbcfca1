from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from dbos import WorkflowStatus

from service.jobs.execution import giving_way
from service.jobs.execution.giving_way import PART, PREPARE, GivingWay, wanted_lock
from service.jobs.faults.endings import Tenure
from service.jobs.records import JobState
from service.jobs.resources import Deps


def workflow(name: str, own_id: str, *, created_at: int = 0, status: str = "PENDING") -> WorkflowStatus:
    found = SimpleNamespace(name=name, workflow_id=own_id, created_at=created_at, status=status, app_version="v1", executor_id=own_id)
    return cast(WorkflowStatus, found)


def waiting_stages(count: int) -> list[WorkflowStatus]:
    return [workflow("gpu_stage", f"stage {index}", status="ENQUEUED") for index in range(count)]


BEGUN = [
    workflow(PART, "old part", created_at=1),
    workflow(PREPARE, "old engine", created_at=2),
    workflow(PREPARE, "young engine", created_at=3),
    workflow(PART, "young part", created_at=4),
    workflow("gpu_stage", "trial", created_at=5),
]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a worker finds in the queue of its type, which a test may change."""
    scene = SimpleNamespace(begun=list(BEGUN), idle=0, wanted=set(), state=JobState.RUNNING, now=100.0)
    monkeypatch.setattr(giving_way, "queued", lambda queue: scene.begun)
    monkeypatch.setattr(giving_way, "idle_workers", lambda *_: scene.idle)
    monkeypatch.setattr(giving_way, "is_lock_held", lambda engine, name: name in {wanted_lock(one) for one in scene.wanted})
    monkeypatch.setattr("service.jobs.execution.giving_way.time", SimpleNamespace(monotonic=lambda: scene.now))
    return scene


def need_of(scene: SimpleNamespace, own_id: str) -> GivingWay:
    member = SimpleNamespace(gpu="L4")
    store = SimpleNamespace(state=lambda job_id: scene.state, engine=None)
    deps = SimpleNamespace(membership=SimpleNamespace(member=member, members=None), store=store)
    return GivingWay(cast(Deps, deps), "job", own_id, cast(Tenure, SimpleNamespace(is_over=lambda: False)))


def leaving(scene: SimpleNamespace, ids: Sequence[str] = ("old part", "old engine", "young engine", "young part")) -> set[str]:
    return {own_id for own_id in ids if need_of(scene, own_id).is_over()}


@pytest.mark.parametrize(
    ("waiting", "idle", "expected"),
    [
        (0, 0, set()),
        (1, 1, set()),
        (1, 0, {"young engine"}),
        (2, 0, {"young engine", "old engine"}),
        (3, 1, {"young engine", "old engine"}),
        (3, 0, {"young engine", "old engine", "young part"}),
        (4, 0, {"young engine", "old engine", "young part", "old part"}),
    ],
)
def test_as_many_give_way_as_workers_are_missing_what_is_perhaps_never_asked_for_first(
    scene: SimpleNamespace, waiting: int, idle: int, expected: set[str]
) -> None:
    scene.begun += waiting_stages(waiting)
    scene.idle = idle
    assert leaving(scene) == expected


def test_what_waits_and_gives_way_itself_moves_nobody(scene: SimpleNamespace) -> None:
    scene.begun += [workflow(PART, "a", status="ENQUEUED"), workflow(PREPARE, "b", status="ENQUEUED")]
    assert leaving(scene) == set()


def test_an_engine_that_is_waited_for_stays(scene: SimpleNamespace) -> None:
    scene.begun += waiting_stages(4)
    scene.wanted = {"young engine"}
    assert leaving(scene) == {"old engine", "young part", "old part"}


def test_all_give_way_where_a_worker_that_should_be_idle_takes_nothing(scene: SimpleNamespace) -> None:
    scene.begun += waiting_stages(1)
    scene.idle = 1
    need = need_of(scene, "old part")
    assert not need.is_over()
    scene.now += 1.9
    assert not need.is_over()
    scene.now += 0.3
    assert need.is_over()


@pytest.mark.parametrize("change", ["cancelled", "taken back", "taken over"])
def test_what_nobody_wants_any_more_is_over(scene: SimpleNamespace, change: str) -> None:
    need = need_of(scene, "old part")
    assert not need.is_over()
    scene.now += 1.0
    if change == "cancelled":
        scene.state = JobState.CANCELLED
    elif change == "taken back":
        scene.begun = scene.begun[1:]
    else:
        scene.begun = [workflow(PART, "old part", status="ENQUEUED"), *scene.begun[1:], *waiting_stages(1)]
    assert need.is_over()


def test_the_database_is_asked_four_times_a_second_at_most(scene: SimpleNamespace) -> None:
    need = need_of(scene, "old part")
    assert not need.is_over()
    scene.state = JobState.CANCELLED
    scene.now += 0.2
    assert not need.is_over()
    scene.now += 0.1
    assert need.is_over()
