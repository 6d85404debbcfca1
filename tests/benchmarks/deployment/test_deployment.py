"""A small deployment, simulated: what must hold holds, whatever fails; and the same seed gives the same course."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
import sqlalchemy as sa

from benchmarks.deployment.deployment_run import Outcome, simulate
from benchmarks.deployment.failures import Kind, Rates
from benchmarks.deployment.processes import SimulatedMembers
from benchmarks.deployment.recorded import recorded_jobs
from benchmarks.deployment.report.figures import figures
from benchmarks.deployment.report.page import page
from benchmarks.deployment.report.plots import plot
from benchmarks.deployment.workload import Deployment, submissions
from benchmarks.results_files import environment
from service.jobs import recovery
from service.jobs.job_table import JOBS
from service.jobs.records import JobState
from tests.benchmarks.page_tables import table

SMALL = Deployment(gpus={"L4": 2, "A10": 2}, cpu_workers=8, tenants=3, load=1.2)
FAILURES = Rates(process_hours=0.1, database=1, store=1)


@pytest.fixture(scope="module")
def small() -> Outcome:
    return simulate(30, 1, SMALL, FAILURES)


def check(outcome: Outcome) -> None:
    """Accept a course in which nothing was lost, nothing finished ran again, and turns were fair."""
    found = figures(outcome)
    assert outcome.states == {"succeeded": len(outcome.jobs)}
    assert (found.not_ended, found.finished_again, found.held_twice, found.unfair_turns) == (0, 0, 0, 0)
    assert found.steps == sum(len(job.steps) for job in outcome.jobs)
    assert outcome.journal.counts["steps begun"] == found.steps + found.steps_broken_off


def test_every_job_ends_once_though_processes_database_and_store_fail(small: Outcome) -> None:
    check(small)
    counts = small.journal.counts
    assert min(counts[kind.value] for kind in Kind) > 0
    assert counts["steps broken off"] > 0
    assert counts["jobs taken over or resumed"] > 0


def test_the_same_seed_gives_the_same_course(small: Outcome) -> None:
    assert course(simulate(30, 1, SMALL, FAILURES)) == course(small)


def test_another_seed_gives_other_jobs(small: Outcome) -> None:
    same, other = (
        submissions(30, SMALL, recorded_jobs(), np.random.default_rng(np.random.SeedSequence(seed).spawn(3)[0])) for seed in (1, 2)
    )
    assert same == small.jobs
    assert other != small.jobs


def test_the_page_and_the_plot_say_what_was_found(small: Outcome) -> None:
    found = figures(small)
    text = page(small, found, (), environment(), "picture.svg", "python -m benchmarks.deployment")
    rows = {row["what"]: row["found"] for row in table(text, "what", "found")}
    assert rows["jobs lost (without an outcome)"] == "0"
    assert rows["finished steps that ran again"] == f"0 of {found.steps}"
    assert "Busy is counted to the last submission" in text
    assert {row["type of GPU"] for row in table(text, "type of GPU", "busy")} == {"L4", "A10"}
    assert plot(small).startswith("<svg ")


@pytest.mark.long
def test_a_larger_deployment_with_many_failures_loses_nothing() -> None:
    deployment = Deployment(gpus={"L4": 3, "A10": 2, "RTX 4090": 2, "H100": 1}, cpu_workers=20, tenants=3, load=1.2, running_jobs=12)
    outcome = simulate(200, 0, deployment, Rates(process_hours=0.2, database=2, store=2))
    check(outcome)
    assert outcome.journal.counts[Kind.KILL.value] > 20
    assert outcome.journal.counts[Kind.CUT.value] > 10


@pytest.mark.long
def test_a_takeover_from_the_living_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nobody_lives(_members: SimulatedMembers, _name: str) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(SimulatedMembers, "taken_as_dead", nobody_lives)
    found = figures(simulate(30, 1, SMALL, FAILURES))
    assert found.held_twice > 0
    assert found.records_refused > 0  # of those whose work was taken from them: it counts once all the same
    assert found.finished_again == 0


@pytest.mark.long
def test_turns_in_the_order_of_submission_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_of_all(engine: sa.Engine, taken: Collection[str], _most: int | None) -> str | None:
        query = sa.select(JOBS.c.id).where(JOBS.c.state == JobState.QUEUED.value, JOBS.c.id.not_in(taken)).order_by(JOBS.c.sequence)
        with engine.connect() as connection:
            return connection.execute(query).scalars().first()

    monkeypatch.setattr(recovery, "next_in_line", first_of_all)
    assert figures(simulate(40, 1, SMALL, Rates(process_hours=float("inf"), database=0, store=0))).unfair_turns > 0


def course(outcome: Outcome) -> list[object]:
    """Return all that happened: when each job was accepted, begun and ended, and what was counted."""
    times = [(job_id, one.accepted, one.begun, one.ended, one.gpu_seconds) for job_id, one in sorted(outcome.journal.jobs.items())]
    return [*times, sorted(outcome.journal.counts.items()), [asdict(sample) for sample in outcome.journal.samples]]
