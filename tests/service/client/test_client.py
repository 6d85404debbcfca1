from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from calibration.errors import InputError, InvalidConfigError, OptimizerError
from engine_builder.errors import StageCancelledError, StageTimeoutError
from service.client.answers import ServerUnavailableError
from service.client.client import Client, job_error
from service.client.downloads import DownloadError
from service.client.views import ArtifactView, JobView
from service.errors import NotFinishedError, NotFoundError, ServiceError, UnauthorizedError

ENGINE = b"engine" * 1000
Handler = Callable[[httpx.Request], httpx.Response]


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


def client_of(handler: Handler, key: str | None = None) -> Client:
    return Client("http://server", key, transport=httpx.MockTransport(handler), clock=FakeClock())


def missing(request: httpx.Request) -> httpx.Response:
    assert request.url.path.startswith("/v1/files/sha256:")
    return httpx.Response(404, json=NotFoundError("file: it is not here", fix="Send it.").problem())


def job_json(state: str = "succeeded", progress: float = 1.0, error: object = None) -> dict[str, object]:
    """Return the example of the HTTP contract."""
    result = {"engine": {"name": "engine.onnx", "sha256": hashlib.sha256(ENGINE).hexdigest(), "size_bytes": len(ENGINE)}}
    return {
        "id": "j1",
        "state": state,
        "stage": "search",
        "progress": progress,
        "eta_seconds": 31,
        "created_at": "2026-11-23T10:00:00Z",
        "started_at": None,
        "finished_at": None,
        "target": "onnxruntime-cpu",
        "config": {},
        "trials": [],
        "best": None,
        "result": result if state == "succeeded" else None,
        "error": error,
        "links": {"self": "/v1/jobs/j1", "engine": "/v1/jobs/j1/engine", "artifacts": "/v1/jobs/j1/artifacts"},
    }


def test_submit_refers_to_uploads_by_their_ids() -> None:
    bodies: list[object] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.read()))
        assert request.headers["idempotency-key"] == "k"
        return httpx.Response(202, json=job_json("queued", 0.0), headers={"Location": "/v1/jobs/j1"})

    with client_of(handler) as client:
        job = client.submit("sha256:m", "sha256:c", None, {"batch_size": 2}, idempotency_key="k")
        client.submit("sha256:m", "sha256:c", "sha256:v", {}, idempotency_key="k", metric_id="sha256:g", priority=3)
    assert job.id == "j1"
    assert bodies == [
        {"model_id": "sha256:m", "calibration_id": "sha256:c", "config": {"batch_size": 2}},
        {
            "model_id": "sha256:m",
            "calibration_id": "sha256:c",
            "validation_id": "sha256:v",
            "metric_id": "sha256:g",
            "config": {},
            "priority": 3,
        },
    ]


def test_watch_tells_each_change_once_and_ends_with_the_job() -> None:
    answers = iter([job_json("queued", 0.0), job_json("running", 0.5), job_json("running", 0.5), job_json()])
    seen: list[float] = []
    with client_of(lambda request: httpx.Response(200, json=next(answers))) as client:
        assert client.watch("j1", lambda job: seen.append(job.progress)).state == "succeeded"
    assert seen == [0.0, 0.5, 1.0]


def test_watch_waits_for_a_server_that_restarts() -> None:
    calls = iter(range(100))

    def handler(request: httpx.Request) -> httpx.Response:
        if 0 < next(calls) < 20:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=job_json("running", 0.5) if next(calls) < 20 else job_json())

    with client_of(handler) as client:
        assert client.watch("j1", lambda job: None).state == "succeeded"


def test_watch_gives_a_dead_server_up() -> None:
    calls = iter(range(1000))

    def handler(request: httpx.Request) -> httpx.Response:
        if next(calls) > 0:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=job_json("running", 0.5))

    with client_of(handler) as client, pytest.raises(ServerUnavailableError, match="refused"):
        client.watch("j1", lambda job: None)


def test_server_that_never_answered_is_not_waited_for() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client_of(handler) as client, pytest.raises(ServerUnavailableError) as caught:
        client.watch("j1", lambda job: None)
    assert "serve" in caught.value.fix


def test_engine_is_checked_and_renamed_into_place(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=ENGINE) if request.url.path.endswith("/engine") else httpx.Response(200, json=job_json())

    with client_of(handler) as client:
        path = client.download_engine("j1", tmp_path / "new")
    assert path == tmp_path / "new" / "engine.onnx"
    assert path.read_bytes() == ENGINE
    assert [entry.name for entry in path.parent.iterdir()] == ["engine.onnx"]


def test_download_follows_a_redirect_without_telling_the_key(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "store":
            assert "authorization" not in request.headers
            return httpx.Response(200, content=ENGINE)
        if request.url.path.endswith("/engine"):
            return httpx.Response(302, headers={"Location": "http://store/engine"})
        return httpx.Response(200, json=job_json())

    with client_of(handler, "secret") as client:
        assert client.download_engine("j1", tmp_path).read_bytes() == ENGINE


@pytest.mark.parametrize("damage", [ENGINE[:-1], b"x" + ENGINE])
def test_damaged_download_leaves_no_file(tmp_path: Path, damage: bytes) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=damage) if request.url.path.endswith("/engine") else httpx.Response(200, json=job_json())

    with client_of(handler) as client, pytest.raises(DownloadError, match=r"engine\.onnx"):
        client.download_engine("j1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_that_breaks_off_keeps_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "engine.onnx").write_bytes(b"earlier")

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/engine"):
            raise httpx.ReadError("broken", request=request)
        return httpx.Response(200, json=job_json())

    with client_of(handler) as client, pytest.raises(ServerUnavailableError):
        client.download_engine("j1", tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "a//b", "..", ""])
def test_server_cannot_choose_a_path_outside_the_folder(tmp_path: Path, name: str) -> None:
    with client_of(lambda request: httpx.Response(200, content=b"x")) as client, pytest.raises(DownloadError, match="inside the folder"):
        client.download_artifact("j1", ArtifactView(name, "0" * 64), tmp_path / "out")


def test_engine_of_an_unfinished_job_is_refused_in_the_servers_words(tmp_path: Path) -> None:
    problem = NotFinishedError("job j1: its state is running", fix="Wait.").problem()

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(409, json=problem) if request.url.path.endswith("/engine") else httpx.Response(200, json=job_json("running"))

    with client_of(handler) as client, pytest.raises(NotFinishedError, match="its state is running"):
        client.download_engine("j1", tmp_path)


@pytest.mark.parametrize(
    "error", [UnauthorizedError("no key", fix="a"), InvalidConfigError("bad", fix="b"), StageTimeoutError("slow", fix="c")]
)
def test_problem_object_becomes_the_error_it_was(error: OptimizerError) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(error.status, json=error.problem(), headers={"Content-Type": "application/problem+json"})

    with client_of(handler) as client, pytest.raises(type(error)) as caught:
        client.get("j1")
    assert caught.value.problem() == error.problem()


def test_unknown_problem_of_a_newer_server_stays_the_users_to_fix() -> None:
    problem = {"type": "urn:onnx-trt-optimizer:problem:from-the-future", "title": "?", "status": 429, "detail": "too many", "fix": "wait"}
    with client_of(lambda request: httpx.Response(429, json=problem)) as client, pytest.raises(InputError, match="too many") as caught:
        client.get("j1")
    assert caught.value.fix == "wait"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx.Response(404, text="<html>"), ServiceError),
        (httpx.Response(502, text="bad gateway"), ServerUnavailableError),
        (httpx.Response(200, text="<html>"), ServerUnavailableError),
        (httpx.Response(200, json=[1]), ServerUnavailableError),
    ],
)
def test_answer_of_something_else_is_said_to_be_that(response: httpx.Response, expected: type[OptimizerError]) -> None:
    with client_of(lambda request: response) as client, pytest.raises(expected):
        client.get("j1")


@pytest.mark.parametrize("address", ["", "server:8000", "ftp://server", "http://[::1"])
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ServiceError, match="server address"):
        Client(address)


def test_cancel_returns_the_job_as_it_then_is() -> None:
    methods: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        methods.append(f"{request.method} {request.url.path}")
        return httpx.Response(200, json=job_json("cancelled"))

    with client_of(handler) as client:
        assert client.cancel("j1").state == "cancelled"
    assert methods == ["POST /v1/jobs/j1/cancel"]


def view(state: str, error: object = None) -> JobView:
    with client_of(lambda request: httpx.Response(200, json=job_json(state, error=error))) as client:
        return client.get("j1")


def test_failed_job_raises_what_its_first_stage_found() -> None:
    problem = InvalidConfigError("bad", fix="b").problem()
    assert job_error(view("failed", problem)).problem() == problem


def test_cancelled_job_has_an_error_of_its_own() -> None:
    assert isinstance(job_error(view("cancelled")), StageCancelledError)


@pytest.mark.parametrize("answer", [{}, {"id": "j1"}, {**job_json(), "trials": 3}, {**job_json(), "result": ["engine"]}])
def test_an_answer_of_another_program_is_no_job(answer: dict[str, object]) -> None:
    with client_of(lambda request: httpx.Response(200, json=answer)) as client, pytest.raises(ServerUnavailableError, match="none of ours"):
        client.get("j1")


def test_files_are_told_whatever_else_a_newer_server_says_of_them() -> None:
    listed = [{"name": "log.txt", "sha256": "0" * 64, "size_bytes": 1, "colour": "blue"}]
    with client_of(lambda request: httpx.Response(200, json={"artifacts": listed, "more": 0})) as client:
        assert client.artifacts("j1") == (ArtifactView("log.txt", "0" * 64),)


def test_a_file_in_a_folder_of_the_job_lands_in_that_folder(tmp_path: Path) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, content=b"x")

    artifact = ArtifactView("front/aa/engine.onnx", hashlib.sha256(b"x").hexdigest())
    with client_of(handler) as client:
        path = client.download_artifact("j1", artifact, tmp_path)
    assert asked == ["/v1/jobs/j1/artifacts/front/aa/engine.onnx"]
    assert path == tmp_path / "front" / "aa" / "engine.onnx"
    assert path.read_bytes() == b"x"


def test_a_folder_of_samples_is_sent_as_a_zip(tmp_path: Path) -> None:
    sent: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return missing(request)
        sent.append(request.read())
        return httpx.Response(201, json={"id": "sha256:0"})

    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "pictures" / "cat" / "1.jpg").write_bytes(b"a picture")
    (tmp_path / "plain.npz").write_bytes(b"arrays")
    with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        assert client.upload_samples(tmp_path / "pictures", "calibration set") == "sha256:0"
        client.upload_samples(tmp_path / "plain.npz", "calibration set")
    with zipfile.ZipFile(io.BytesIO(sent[0])) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"cat/1.jpg": b"a picture"}
    assert sent[1] == b"arrays"


@pytest.mark.parametrize(("limit", "asked"), [(None, ["100", "100", "100"]), (150, ["100", "50"]), (0, [])])
def test_a_list_of_jobs_is_read_page_by_page(limit: int | None, asked: list[str]) -> None:
    sizes: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        sizes.append(query["limit"])
        assert query["state"] == "queued"
        begin = int(query.get("cursor", "0"))
        rows = [{"id": f"j{number}", "state": "queued", "stage": None, "progress": 0.0} for number in range(begin, 250)]
        page = rows[: int(query["limit"])]
        following = begin + len(page)
        return httpx.Response(200, json={"jobs": page, "next_cursor": str(following) if following < 250 else None})

    with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        found = [row.id for row in client.jobs(state="queued", limit=limit)]
    assert found == [f"j{number}" for number in range(250 if limit is None else limit)]
    assert sizes == asked
