"""``serve`` on Postgres and an object store: downloads, what it does with damaged objects, and what it removes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.client.client import Client
from service.object_store.filesystem import FileSystem, open_filesystem
from tests.distributed.test_server_on_postgres import test_jobs_run_and_are_seen_as_on_sqlite as check_jobs
from tests.object_store_server import BUCKET, ObjectStoreServer
from tests.postgres_server import PostgresServer
from tests.service.conftest import Server, running_server


@pytest.fixture(scope="module", params=["stream", "redirect"])
def server(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    object_store: ObjectStoreServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.environment.items():
            patch.setenv(name, value)
        with running_server(
            folder,
            database_url=postgres.create_database(),
            object_store=f"s3://{BUCKET}/{folder.name}/deep/",
            downloads=request.param,
        ) as running:
            yield running


@pytest.fixture
def filesystem(server: Server, object_store: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> FileSystem:
    del server
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return open_filesystem()


def path_of(server: Server, sha256: str) -> str:
    assert server.deps.settings.object_store is not None
    return f"{server.deps.settings.object_store.removeprefix('s3://').rstrip('/')}/store/{sha256[:2]}/{sha256}"


def test_a_download_is_streamed_or_leads_to_the_store(server: Server, object_store: ObjectStoreServer, tmp_path: Path) -> None:
    if server.deps.settings.downloads == "stream":
        check_jobs(server)
        return
    done = server.wait(server.submit(trials=0)["id"])
    answer = server.client.get(f"/v1/jobs/{done['id']}/engine", headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 307
    link = answer.headers["location"]
    assert link.startswith(object_store.endpoint)
    assert "secret" not in link.replace(object_store.environment["AWS_ACCESS_KEY_ID"], "")
    there = httpx.get(link, trust_env=False)
    assert there.content.startswith(b"engine of ")
    assert there.headers["content-disposition"] == "attachment; filename*=UTF-8''engine.onnx"
    report = server.client.get(f"/v1/jobs/{done['id']}/artifacts/report.html")
    assert (report.status_code, report.content) == (200, b"<p>fake</p>")
    assert "sandbox" in report.headers["content-security-policy"]
    with Client(str(server.client.base_url)) as client:
        listed = next(one for one in client.artifacts(str(done["id"])) if one.name == "engine.onnx")
        path = client.download_artifact(str(done["id"]), listed, tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == listed.sha256


def test_a_damaged_artifact_is_said_by_its_name_and_not_served(server: Server, filesystem: FileSystem) -> None:
    done = server.wait(server.submit(trials=0, note="damaged")["id"])
    listed = server.client.get(f"/v1/jobs/{done['id']}/artifacts").json()["artifacts"]
    html = next(one for one in listed if one["name"] == "report.html")
    for one in listed:
        if one["name"] == "report.html":
            server.deps.artifacts.require(one["sha256"])
    cached = next(server.deps.settings.data_dir.glob(f"store/??/{html['sha256']}"))
    cached.unlink()
    filesystem.pipe_file(path_of(server, html["sha256"]), b"<p>FAKE</p>")
    for _ in range(2):
        answer = server.client.get(html["link"])
        assert answer.status_code == 500
        problem = answer.json()
        assert problem["type"].endswith("artifact-damaged")
        assert problem["detail"].startswith(f"artifact 'report.html': file sha256:{html['sha256']}: the object store lost it")
        assert "FAKE" not in answer.text
    filesystem.pipe_file(path_of(server, html["sha256"]), b"<p>fake</p>")  # restored
    assert server.client.get(html["link"]).content == b"<p>fake</p>"
    assert server.deps.artifacts.find(html["sha256"]) is not None


def test_a_file_of_two_tenants_jobs_stays_until_the_last_goes(server: Server) -> None:
    first = server.wait(server.submit(trials=0, note="twice")["id"])
    second = server.wait(server.submit(trials=0, note="twice")["id"])
    links = [f"/v1/jobs/{job['id']}/engine" for job in (first, second)]
    assert server.client.delete(f"/v1/jobs/{first['id']}").status_code == 204
    assert server.deps.files.collect is not None
    server.deps.files.collect()
    assert server.client.get(links[0]).status_code == 410
    assert server.client.get(links[1], follow_redirects=False).status_code in {200, 307}


def test_uploads_are_found_again_and_removed(server: Server) -> None:
    sent = server.client.post("/v1/files", content=b"some samples").json()["id"]
    assert server.client.get(f"/v1/files/{sent}").status_code == 200
    assert server.client.delete(f"/v1/files/{sent}").status_code == 204
    assert server.client.get(f"/v1/files/{sent}").status_code == 404
    assert server.client.post("/v1/files", content=b"some samples").json()["id"] == sent
    assert server.client.get(f"/v1/files/{sent}").status_code == 200
