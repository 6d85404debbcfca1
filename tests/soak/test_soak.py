"""A few jobs of the soak, and what its figures are made of; ``make soak`` runs hundreds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.results_files import environment, environment_line
from tests.soak.__main__ import EMBEDDED, opened
from tests.soak.footprint import growth
from tests.soak.page import TOMBSTONES, page
from tests.soak.soaking import Plan, soak
from tests.soak.tiny_jobs import NETWORKS, SAMPLE_SETS, TinyJob


@pytest.mark.long
def test_no_job_is_lost_or_wrong_where_processes_are_killed(tmp_path: Path) -> None:
    with opened(EMBEDDED, tmp_path) as place:
        found = soak(place, Plan(seed=3, jobs=8, seconds_between_kills=4.0))
        assert (found.submitted, found.ended, found.lost, found.wrong) == (8, 8, [], [])
        assert found.kills
        assert found.left[TOMBSTONES] == 8
        assert {
            name: found.left[name] for name in ("jobs", "job_events", "job_files", "workflow_status", "operation_outputs")
        } == dict.fromkeys(("jobs", "job_events", "job_files", "workflow_status", "operation_outputs"), 0)
        text = page("here", Plan(3, 8, 4.0), found, environment_line(environment()))
    assert "| lost | 0 |" in text
    assert "memory of server" in text


def test_jobs_differ_and_come_again_the_same() -> None:
    jobs = [TinyJob(number, seed=1) for number in range(NETWORKS * SAMPLE_SETS)]
    assert len({job.files()["model"] + job.files()["calibration"] for job in jobs}) == len(jobs)
    assert TinyJob(5, seed=1).files() == jobs[5].files()
    assert TinyJob(5, seed=2).files()["model"] != jobs[5].files()["model"]


def test_a_job_that_gives_another_engine_than_it_says_is_wrong() -> None:
    job = TinyJob(0, seed=1)
    own, other = job.model().SerializeToString(), TinyJob(1, seed=1).model().SerializeToString()
    said = {
        "state": "succeeded",
        "trials": [{"failure": None}],
        "result": {"engine": {"size_bytes": len(own)}, "chosen": {"accuracy": 1.0}},
    }
    assert job.wrong(said, own) is None
    assert "agrees with the network" in str(job.wrong(said, other))
    assert "bytes" in str(job.wrong(said, own + b"more"))
    assert "trials failed" in str(job.wrong({**said, "trials": [{"failure": "crashed"}]}, own))
    assert "it is failed" in str(job.wrong({**said, "state": "failed"}, own))


def test_growth_is_what_comes_with_each_job() -> None:
    rng = random.Random(0)
    jobs = list(range(100))
    slope, error = growth(jobs, [1000 + 3 * job + rng.gauss(0, 1) for job in jobs])
    assert abs(slope - 3) < error < 0.1
    slope, error = growth(jobs, [1000 + rng.gauss(0, 1) for _ in jobs])
    assert abs(slope) < 2 * error  # twice the standard error is passed once in twenty times, four times the standard error hardly ever
    assert growth([1, 2], [1.0, 2.0])[1] == float("inf")
