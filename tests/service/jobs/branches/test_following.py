from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_builder.config.config import Config, config_json
from service.jobs.branches.planning import branch_of, folder_of
from service.jobs.execution.placement import branch_configs
from service.jobs.live.eta import eta_seconds
from service.jobs.live.events import EventKind
from service.jobs.live.shown import job_json
from service.jobs.records import JobState, NewJob, StoredFile
from service.jobs.store import JobStore
from tests.fakes import FakeClock

CONFIG = Config(target="tensorrt", gpus=("NVIDIA L4", "GeForce RTX 4090"))
PROBLEM: dict[str, object] = {"detail": "no engine", "fix": "None."}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[JobStore]:
    own = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    store = JobStore(own if request.param == "sqlite" else request.getfixturevalue("postgres").create_database(), clock)
    parent = NewJob("job", "tensorrt", config_json(CONFIG), {}, branches=2)
    branches = [branch_of(parent, config, {}, name) for config, name in zip(branch_configs(CONFIG), ("l4", "rtx"), strict=True)]
    store.create(parent, branches=branches)
    yield store
    store.close()


def succeed(store: JobStore, branch: str, outcome: str = "improved") -> None:
    digest = branch.encode().hex().ljust(64, "0")
    files = {"engine.plan": StoredFile(digest, 5)}
    store.start(branch)
    store.succeed(branch, {"outcome": outcome, "speedup": 2.0, "engine": {"name": "engine.plan", "sha256": digest}}, "engine.plan", files)


def kinds(store: JobStore, job_id: str) -> list[EventKind]:
    return [event.kind for event in store.events.after(job_id, 0)]


def test_a_job_has_a_branch_for_each_type_under_the_name_that_workers_have_it(store: JobStore) -> None:
    assert [branch.new.config["gpu"] for branch in store.branches("job")] == ["L4", "RTX 4090"]
    assert [branch.new.config["gpus"] for branch in store.branches("job")] == [[], []]
    assert [row.id for row in store.rows(limit=9)] == ["job"]


def test_it_begins_with_its_first_branch_and_is_as_far_as_all_of_them(store: JobStore) -> None:
    store.start("l4")
    store.advance("l4", "search", 0.5)
    job = store.get("job")
    assert (job.state, job.stage, job.progress) == (JobState.RUNNING, "search", 0.25)
    store.start("rtx")
    store.advance("rtx", "ranges", 0.1)
    job = store.get("job")
    assert job.stage == "ranges"
    assert job.progress == pytest.approx(0.3)
    assert job.started_at is not None
    assert kinds(store, "job")[:2] == [EventKind.STATE, EventKind.STATE]


def test_it_has_not_begun_when_a_branch_that_waited_is_cancelled(store: JobStore) -> None:
    store.cancel("l4")
    assert (store.get("job").state, store.get("job").started_at) == (JobState.QUEUED, None)
    store.start("rtx")
    assert store.get("job").state is JobState.RUNNING


def test_the_time_that_is_left_is_that_of_the_branch_with_the_most(store: JobStore, clock: FakeClock) -> None:
    store.start("l4")
    clock.advance(10)
    store.advance("l4", "search", 0.5)
    assert store.events.after("job", 0)[-1].data["eta_seconds"] is None  # the other one has not begun
    store.start("rtx")
    clock.advance(30)
    store.advance("rtx", "ranges", 0.1)
    left = [eta_seconds(branch, clock()) for branch in store.branches("job")]
    assert None not in left
    assert left[0] != left[1]
    most = max(seconds for seconds in left if seconds is not None)
    assert store.events.after("job", 0)[-1].data["eta_seconds"] == most
    assert job_json(store.get("job"), clock(), branches=store.branches("job"))["eta_seconds"] == most
    store.fail("l4", PROBLEM, {})
    assert job_json(store.get("job"), clock(), branches=store.branches("job"))["eta_seconds"] == left[1]


def test_it_ends_with_its_last_branch_with_the_engines_of_all_types(store: JobStore) -> None:
    succeed(store, "l4", "baseline_kept")
    assert store.get("job").state is JobState.RUNNING
    succeed(store, "rtx")
    job = store.get("job")
    assert (job.state, job.progress) == (JobState.SUCCEEDED, 1.0)
    assert job.finished_at is not None
    assert job.result is not None
    assert job.result["outcome"] == "improved"
    assert job.result["engines"]["L4"]["outcome"] == "baseline_kept"  # type: ignore[index]
    assert job.result["engines"]["RTX 4090"]["engine"]["name"] == "RTX-4090/engine.plan"  # type: ignore[index]
    assert set(job.artifacts) == {"L4/engine.plan", "RTX-4090/engine.plan"}
    assert kinds(store, "job").count(EventKind.END) == 1


def test_a_branch_that_fails_does_not_lose_the_others(store: JobStore) -> None:
    store.start("l4")
    store.fail("l4", PROBLEM, {})
    succeed(store, "rtx")
    job = store.get("job")
    assert job.state is JobState.SUCCEEDED
    assert job.result is not None
    assert job.result["engines"]["L4"]["error"] == PROBLEM  # type: ignore[index]
    assert set(job.artifacts) == {"RTX-4090/engine.plan"}


def test_it_fails_where_no_branch_succeeds(store: JobStore) -> None:
    store.cancel("l4")
    store.fail("rtx", PROBLEM, {})
    job = store.get("job")
    assert (job.state, job.error, job.result) == (JobState.FAILED, PROBLEM, None)


def test_it_is_cancelled_where_all_branches_are(store: JobStore) -> None:
    store.cancel("l4")
    assert store.get("job").state is JobState.QUEUED
    store.cancel("rtx")
    assert store.get("job").state is JobState.CANCELLED


def test_cancel_ends_the_branches_that_have_not_ended_and_keeps_what_the_others_left(store: JobStore) -> None:
    succeed(store, "l4")
    store.start("rtx")
    assert store.cancel("job") is JobState.RUNNING
    assert [store.state(one) for one in ("job", "l4", "rtx")] == [JobState.CANCELLED, JobState.SUCCEEDED, JobState.CANCELLED]
    assert set(store.get("job").artifacts) == {"L4/engine.plan"}
    assert kinds(store, "rtx").count(EventKind.END) == kinds(store, "job").count(EventKind.END) == 1


def test_branches_go_with_their_job_and_not_without_it(store: JobStore) -> None:
    for name in ("l4", "rtx"):
        succeed(store, name)
    assert store.remove("l4", "it was deleted") is None
    unused = store.remove("job", "it was deleted")
    assert unused is not None
    assert len(unused) == 2
    assert store.list() == ()


def test_two_branches_that_end_at_the_same_moment_end_their_job(store: JobStore) -> None:
    for name in ("l4", "rtx"):
        store.start(name)
    together = threading.Barrier(2)

    def fail(name: str) -> None:
        together.wait()
        store.fail(name, PROBLEM, {})

    threads = [threading.Thread(target=fail, args=(name,)) for name in ("l4", "rtx")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("job").state is JobState.FAILED


def test_a_job_whose_branches_the_database_lost_is_failed(store: JobStore) -> None:
    store.create(NewJob("lost", "tensorrt", {}, {}, branches=2))
    store.settle("lost")
    job = store.get("lost")
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "lost the branches" in str(job.error["detail"])


def test_figures_of_jobs_count_branches_and_no_job_twice(store: JobStore) -> None:
    assert store.counts() == {JobState.QUEUED: 2}
    store.start("l4")
    assert store.running_ids() == {"l4"}


@pytest.mark.parametrize(("gpu", "folder"), [("L4", "L4"), ("RTX 4090", "RTX-4090"), ("../..", "gpu"), ("A/B\\C", "A-B-C")])
def test_a_type_has_a_folder_of_plain_letters(gpu: str, folder: str) -> None:
    assert folder_of(gpu) == folder
