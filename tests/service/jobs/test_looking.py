"""What a worker looks at now and then: jobs that nobody works on, and of those of others no more than one question for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.jobs import recovery
from service.jobs.records import JobState
from service.jobs.recovery import Dispatcher
from service.jobs.resources import Deps, open_deps
from service.jobs.workflow import JOB, Workflows
from service.settings import Settings
from tests.service.jobs.test_store import new_job


@dataclass
class Found:
    """What the workflow engine knows of one job."""

    workflow_id: str
    status: str
    executor_id: str = "another"
    queue_name: str = "jobs"
    app_version: str = "1"
    name: str = JOB


@dataclass
class FakeEngine:
    """Answers for the workflow engine, and counts the questions."""

    known: dict[str, Found] = field(default_factory=dict)
    asked_alone: list[str] = field(default_factory=list)
    lists: int = 0

    def list_workflows(self, *, status: str | list[str], executor_id: str | None = None, **_options: object) -> list[Found]:
        self.lists += 1
        wanted = {status} if isinstance(status, str) else set(status)
        return [one for one in self.known.values() if one.status in wanted and executor_id in {None, one.executor_id}]

    def get_workflow_status(self, workflow_id: str) -> Found | None:
        self.asked_alone.append(workflow_id)
        return self.known.get(workflow_id)


class RecordedWorkflows(Workflows):
    """Notes what is enqueued."""

    def __init__(self, deps: Deps) -> None:
        super().__init__(deps)
        self.enqueued: list[str] = []

    def enqueue(self, job_id: str) -> None:
        self.enqueued.append(job_id)


@pytest.fixture
def deps(tmp_path: Path) -> Iterator[Deps]:
    deps = open_deps(Settings(data_dir=tmp_path))
    yield deps
    deps.close()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine()
    monkeypatch.setattr(recovery, "DBOS", engine)
    return engine


def run_elsewhere(deps: Deps, engine: FakeEngine, name: str, status: str | None) -> None:
    """Add a job that runs, of which the engine says this."""
    deps.store.create(new_job(name))
    deps.store.start(name)
    if status is not None:
        engine.known[name] = Found(name, status)


def test_jobs_that_run_elsewhere_are_not_asked_for_one_by_one(deps: Deps, engine: FakeEngine) -> None:
    for number in range(20):
        run_elsewhere(deps, engine, f"job-{number}", "PENDING")
    dispatcher = Dispatcher(RecordedWorkflows(deps), deps)
    for _ in range(3):
        dispatcher.look()
    assert engine.asked_alone == []
    assert engine.lists == 3


def test_a_job_that_the_engine_does_not_know_is_enqueued_and_one_that_ended_without_outcome_fails(deps: Deps, engine: FakeEngine) -> None:
    run_elsewhere(deps, engine, "known", "PENDING")
    run_elsewhere(deps, engine, "unknown", None)
    run_elsewhere(deps, engine, "ended", "SUCCESS")
    workflows = RecordedWorkflows(deps)
    dispatcher = Dispatcher(workflows, deps)
    dispatcher.look()
    assert workflows.enqueued == []  # it may have been between two hands
    dispatcher.look()
    assert workflows.enqueued == ["unknown"]
    assert deps.store.state("known") is JobState.RUNNING
    assert deps.store.state("ended") is JobState.FAILED


def test_a_free_worker_asks_the_engine_nothing_while_no_job_waits(deps: Deps, engine: FakeEngine) -> None:
    workflows = RecordedWorkflows(deps)
    dispatcher = Dispatcher(workflows, deps)
    run_elsewhere(deps, engine, "running", "PENDING")
    dispatcher.hand_over()
    assert (engine.lists, workflows.enqueued) == (0, [])
    deps.store.create(new_job("waits"))
    dispatcher.hand_over()
    assert (engine.lists, workflows.enqueued) == (1, ["waits"])
