from __future__ import annotations

import pytest

from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import ServerStopping


def broken_off(active: ActiveJobs, job_id: str) -> None:
    with pytest.raises(ServerStopping), active.with_job(job_id):
        raise ServerStopping


def test_a_job_that_was_broken_off_is_known_until_it_begins_again() -> None:
    active = ActiveJobs()
    broken_off(active, "one")
    assert not active.ids()
    assert active.broken_off() == {"one"}
    with active.with_job("one"):
        assert active.broken_off() == frozenset()
    assert active.broken_off() == frozenset()


def test_a_job_that_still_runs_on_another_thread_is_not_broken_off() -> None:
    active = ActiveJobs()
    with active.with_job("one"):
        broken_off(active, "one")
        assert active.broken_off() == frozenset()


def test_a_job_that_failed_was_not_broken_off() -> None:
    active = ActiveJobs()
    with pytest.raises(ValueError, match="no such"), active.with_job("one"):
        raise ValueError("no such")
    assert active.broken_off() == frozenset()


def test_somebody_who_sees_to_jobs_has_them_forgotten() -> None:
    active = ActiveJobs()
    for job_id in ("one", "two"):
        broken_off(active, job_id)
    active.forget_broken_off(["one", "three"])
    assert active.broken_off() == {"two"}
