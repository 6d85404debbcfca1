"""``serve`` on Postgres, which answers callers and runs jobs too, as it does on SQLite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.jobs import recovery
from tests.fakes import executions
from tests.postgres_server import PostgresServer
from tests.service.conftest import Server, running_server


@pytest.fixture(scope="module")
def server(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server"), database_url=postgres.create_database()) as running:
        yield running


def test_jobs_run_and_are_seen_as_on_sqlite(server: Server) -> None:
    assert server.client.get("/readyz").json() == {"status": "ready", "problems": {}}
    done = server.wait(server.submit(trials=2)["id"])
    assert done["state"] == "succeeded"
    assert len(done["trials"]) == 2  # type: ignore[arg-type]
    assert server.client.get(f"/v1/jobs/{done['id']}/engine").content.startswith(b"engine of ")
    assert server.client.get(f"/v1/jobs/{done['id']}/events").text.count("event: trial") == 2
    assert "onnx_trt_optimizer_jobs" in server.client.get("/metrics").text
    assert [row["id"] for row in server.client.get("/v1/jobs?state=succeeded").json()["jobs"]] == [done["id"]]


def test_a_finished_job_is_deleted_with_all_that_it_had(server: Server) -> None:
    done = server.wait(server.submit(trials=0)["id"])
    sha256 = server.client.get(f"/v1/jobs/{done['id']}/artifacts").json()["artifacts"][0]["sha256"]
    assert server.deps.artifacts.find(sha256) is not None
    assert server.delete(done["id"]) == 204
    assert server.client.get(f"/v1/jobs/{done['id']}").status_code == 410


def test_a_job_of_a_version_that_nobody_runs_any_more_starts_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(recovery, "AWAY_LEASES", 0.05)
    blocker = server.submit(trials=1, seconds=1.5)  # so that the next one waits in its queue
    server.wait(blocker["id"], "running")
    waiting = server.submit(trials=1)
    with server.deps.store.engine.begin() as connection:
        version = "(workflow_uuid, name, status, queue_name, application_version, executor_id, inputs)"
        connection.exec_driver_sql(
            f"INSERT INTO dbos.workflow_status {version} VALUES ('{waiting['id']}', 'optimize_job', 'PENDING', 'jobs', 'old', 'gone', '[]')"
        )
    assert server.wait(waiting["id"], seconds=40)["state"] == "succeeded"
    assert [line.split()[1] for line in executions(server.record)][-2:] == ["report", "report"]
