"""GET /v1/jobs/{job_id}/engines/{fingerprint}: engines that other budgets would give."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.jobs.records import NewJob, StoredFile
from service.jobs.resources import Deps
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem

OFFERED, NOT_BUILT, SHIPPED, ONLY_TRIED = (letter * 16 for letter in "abcd")


def stored(deps: Deps, folder: Path, content: bytes) -> StoredFile:
    path = folder / "content"
    path.write_bytes(content)
    return deps.artifacts.put(path)


@pytest.fixture
def job(server: Server, tmp_path: Path) -> str:
    """Return the id of a job that has succeeded with offers; what ran it does not matter here."""
    store, name = server.deps.store, tmp_path.name
    store.create(NewJob(name, "onnxruntime-cpu", {}, {}))
    assert store.start(name)
    store.record_trials(name, [{"fingerprint": ONLY_TRIED}, {"fingerprint": OFFERED}], 0)
    offered = {"name": f"front/{OFFERED}/engine.onnx", "sha256": "0" * 64}
    engines = [
        {"fingerprint": OFFERED, "file": offered, "no_file": None},
        {"fingerprint": NOT_BUILT, "file": None, "no_file": "it was not built once more"},
        {"fingerprint": SHIPPED, "file": {"name": "engine.onnx", "sha256": "1" * 64}, "no_file": None},
    ]
    artifacts = {
        offered["name"]: stored(server.deps, tmp_path, b"a faster engine"),
        "engine.onnx": stored(server.deps, tmp_path, b"the engine"),
    }
    store.succeed(name, {"offers": {"engines": engines}}, "engine.onnx", artifacts)
    return name


def get(server: Server, job: str, fingerprint: str) -> httpx.Response:
    return server.client.get(f"/v1/jobs/{job}/engines/{fingerprint}")


def test_an_offered_engine_is_downloaded_by_its_fingerprint(server: Server, job: str) -> None:
    answer = get(server, job, OFFERED)
    assert (answer.status_code, answer.content) == (200, b"a faster engine")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''engine.onnx"


def test_the_engine_that_ships_is_one_of_them(server: Server, job: str) -> None:
    assert get(server, job, SHIPPED).content == b"the engine"


def test_it_is_listed_among_the_artifacts_with_its_digest_and_a_link_that_works(server: Server, job: str) -> None:
    listed = {file["name"]: file for file in server.client.get(f"/v1/jobs/{job}/artifacts").json()["artifacts"]}
    file = listed[f"front/{OFFERED}/engine.onnx"]
    answer = server.client.get(file["link"])
    assert answer.content == b"a faster engine"
    assert answer.headers["etag"] == f'"{file["sha256"]}"'


def test_an_engine_that_was_not_built_is_gone_with_the_reason_and_the_others(server: Server, job: str) -> None:
    problem = assert_problem(get(server, job, NOT_BUILT), 410, "engine-not-kept")
    assert "it was not built once more" in str(problem["detail"])
    assert problem["fix"] == f"Engines with a file: {OFFERED}, {SHIPPED}."


def test_an_engine_that_was_only_tried_is_gone(server: Server, job: str) -> None:
    problem = assert_problem(get(server, job, ONLY_TRIED), 410, "engine-not-kept")
    assert "it was measured and not kept" in str(problem["detail"]).replace(f"engine {ONLY_TRIED} was", "it was")


@pytest.mark.parametrize("fingerprint", ["f" * 16, "engine.onnx", "%2e%2e%2fengine.onnx"])
def test_an_engine_that_the_job_does_not_know_is_not_found(server: Server, job: str, fingerprint: str) -> None:
    assert get(server, job, fingerprint).status_code == 404


def test_a_job_that_has_not_succeeded_has_no_engines(server: Server, job: str) -> None:
    store = server.deps.store
    store.create(NewJob(f"{job}-2", "onnxruntime-cpu", {}, {}))
    assert_problem(get(server, f"{job}-2", OFFERED), 409, "job-not-succeeded")
    store.cancel(f"{job}-2")
    assert_problem(get(server, "none", OFFERED), 404, "not-found")
