"""Jobs that the workflow engine could not take, or could not write about, at the moment when it should have: they run all the same."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos._sys_db import SystemDatabase

from service.jobs import recovery
from service.jobs.workflow import Workflows
from tests.fakes import executions, fake_model
from tests.service.conftest import running_server


def full() -> sa.exc.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return sa.exc.OperationalError("INSERT", {}, error)


def test_a_job_that_could_not_be_enqueued_is_enqueued_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.3)
    enqueue, failures = Workflows.enqueue, [full(), full(), RuntimeError("anything else")]

    def fail_first(self: Workflows, job_id: str) -> None:
        if failures:
            raise failures.pop()
        enqueue(self, job_id)

    monkeypatch.setattr(Workflows, "enqueue", fail_first)
    with running_server(tmp_path) as server:
        files = {"model": fake_model(trials=0), "calibration": b"numbers"}
        sent = [server.client.post("/v1/jobs", files=files, headers={"Idempotency-Key": "one"}) for _ in range(2)]
        assert [answer.status_code for answer in sent] == [202, 202]
        assert sent[0].json()["id"] == sent[1].json()["id"]
        assert server.wait(sent[0].json()["id"], seconds=60)["state"] == "succeeded"
    assert failures == []


def test_a_step_that_the_engine_could_not_record_runs_again_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, seen = SystemDatabase.record_operation_result, []

    def fail_once(self: SystemDatabase, result: dict[str, object], **options: object) -> None:
        seen.append(result["function_name"])
        if seen == ["inspect", "trial/0"]:
            raise full()
        record(self, result, **options)  # type: ignore[arg-type]  # handed through as it came

    monkeypatch.setattr(SystemDatabase, "record_operation_result", fail_once)
    with running_server(tmp_path) as server:
        job = server.submit(trials=2)
        assert server.wait(job["id"], seconds=60)["state"] == "succeeded"
        begun = [line.split()[1] for line in executions(server.record) if line.startswith("begin")]
    assert begun == ["inspect", "trial/0", "trial/0", "trial/1", "report"]


def test_a_workflow_that_was_begun_and_that_nobody_runs_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.3)
    outcome, failures = SystemDatabase.update_workflow_outcome, [full()]

    def fail_once(self: SystemDatabase, *arguments: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return outcome(self, *arguments, **options)  # type: ignore[arg-type]  # handed through as it came

    monkeypatch.setattr(SystemDatabase, "update_workflow_outcome", fail_once)
    with running_server(tmp_path) as server:
        first = server.submit(trials=0)
        assert server.wait(first["id"], seconds=60)["state"] == "succeeded"
        database = server.deps.settings.data_dir / "service.sqlite"
        deadline = time.monotonic() + 30
        while (status := workflow_status(database, str(first["id"]))) != "SUCCESS":
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
    assert failures == []


def workflow_status(database: Path, job_id: str) -> str:
    with closing(sqlite3.connect(database)) as connection:
        (status,) = connection.execute("SELECT status FROM workflow_status WHERE workflow_uuid = ?", (job_id,)).fetchone()
    return str(status)
