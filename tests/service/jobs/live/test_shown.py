from __future__ import annotations

from datetime import timedelta

from service.jobs.live.shown import job_json, row_json
from service.jobs.records import Job, JobRow, JobState, NewJob
from tests.fakes import FakeClock


def test_job_json_has_exactly_the_keys_of_the_contract() -> None:
    clock = FakeClock()
    job = Job(1, NewJob("j", "onnxruntime-cpu", {"threads": 1}, {}), JobState.RUNNING, "search", 0.25, clock(), clock(), None)
    assert job_json(job, clock() + timedelta(seconds=10), ["a line"]) == {
        "id": "j",
        "state": "running",
        "hold": None,
        "priority": 0,
        "stage": "search",
        "progress": 0.25,
        "eta_seconds": 30,
        "created_at": "2026-11-23T10:00:00Z",
        "started_at": "2026-11-23T10:00:00Z",
        "finished_at": None,
        "target": "onnxruntime-cpu",
        "tenant": "default",
        "parent": None,
        "branches": [],
        "config": {"threads": 1},
        "outputs": None,
        "trials": [],
        "best": None,
        "result": None,
        "error": None,
        "log_tail": ["a line"],
        "links": {"self": "/v1/jobs/j", **{name: f"/v1/jobs/j/{name}" for name in ("engine", "artifacts", "events", "log")}},
    }


def test_row_has_exactly_the_keys_of_the_contract() -> None:
    now = FakeClock()()
    predicted = {"value": 1.5, "range": [1.25, 1.75]}
    row = JobRow(1, "j", JobState.SUCCEEDED, "report", 1.0, now, now, now, "tensorrt-rtx", "default", "improved", None, predicted)
    assert row_json(row) == {
        "id": "j",
        "state": "succeeded",
        "stage": "report",
        "progress": 1.0,
        "created_at": "2026-11-23T10:00:00Z",
        "started_at": "2026-11-23T10:00:00Z",
        "finished_at": "2026-11-23T10:00:00Z",
        "target": "tensorrt-rtx",
        "tenant": "default",
        "outcome": "improved",
        "speedup": None,
        "predicted_speedup": predicted,
        "links": {"self": "/v1/jobs/j"},
    }
