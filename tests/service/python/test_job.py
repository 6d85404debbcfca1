"""A job over a server that answers from a list."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from calibration.errors import InvalidModelError
from engine_builder.errors import StageCancelledError
from service.client.client import Client as HttpClient
from service.client.views import JobRow
from service.errors import InvalidRequestError, NotFinishedError, ServiceError
from service.python.events import EndEvent, ProgressEvent, StageEvent, Trial, TrialEvent
from service.python.job import Job, WaitTimeoutError
from tests.service.client.test_client import FakeClock
from tests.service.python.test_result import RESULT

ENGINE, REPORT = b"an engine", b"a page"
FIRST = {"index": 0, "order": "baseline", "low_layers": 0, "met": True, "latency_ms": {"median": 1.0, "p95": None, "runs": 3}}
SECOND = {"index": 1, "order": "all_low", "low_layers": 2, "failure": "it crashed", "accuracy": None}


def shown(state: str, progress: float, stage: str | None = None, **more: object) -> dict[str, object]:
    return {"id": "j1", "state": state, "stage": stage, "progress": progress, "trials": [], "result": None, "error": None, **more}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def succeeded() -> dict[str, object]:
    return shown("succeeded", 1.0, result={**RESULT, "engine": {"name": "engine.onnx", "sha256": sha256(ENGINE)}}, trials=[FIRST, SECOND])


PROBLEM = InvalidModelError("model: it is none", fix="Export it again.").problem()


class Server:
    """Shows the job in one form after the other, and stays at the last."""

    def __init__(self, views: Sequence[Mapping[str, object]], *, deletes: int = 204) -> None:
        self._views = list(views)
        self._deletes = deletes
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        files = {"/v1/jobs/j1/engine": ENGINE, "/v1/jobs/j1/artifacts/report.html": REPORT}
        if request.url.path in files:
            return httpx.Response(200, content=files[request.url.path])
        if request.url.path == "/v1/jobs/j1/artifacts":
            listed = [{"name": name, "sha256": sha256(data)} for name, data in (("engine.onnx", ENGINE), ("report.html", REPORT))]
            return httpx.Response(200, json={"artifacts": listed})
        if request.method == "DELETE":
            return httpx.Response(self._deletes, json=None if self._deletes == 204 else self._views[0])
        return httpx.Response(200, json=self._views.pop(0) if len(self._views) > 1 else self._views[0])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_clients() -> Iterator[list[HttpClient]]:
    opened: list[HttpClient] = []
    yield opened
    for one in opened:
        one.close()


class Jobs:
    """Makes jobs of servers, whose connections are closed at the end."""

    def __init__(self, clock: FakeClock, opened: list[HttpClient]) -> None:
        self._clock = clock
        self._opened = opened

    def __call__(self, server: Server) -> Job:
        self._opened.append(HttpClient("http://test", transport=httpx.MockTransport(server), clock=self._clock))
        return Job(self._opened[-1], JobRow("j1", "queued", None, 0.0))


@pytest.fixture
def job_of(clock: FakeClock, open_clients: list[HttpClient]) -> Jobs:
    return Jobs(clock, open_clients)


def test_what_happens_is_told_once_and_in_order(job_of: Jobs) -> None:
    running = shown("running", 0.5, "search", trials=[FIRST])
    job = job_of(Server([shown("queued", 0.0), running, running, shown("running", 0.5, "report", trials=[FIRST, SECOND]), succeeded()]))
    *events, end = job.watch()
    first, second = (event.trial for event in events if isinstance(event, TrialEvent))
    assert events == [
        StageEvent("queued", 0.0),
        ProgressEvent(0.0),
        StageEvent("search", 0.5),
        TrialEvent(first),
        ProgressEvent(0.5),
        StageEvent("report", 0.5),
        TrialEvent(second),
        ProgressEvent(1.0),
    ]
    assert second == Trial(1, "all_low", 2, failure="it crashed")
    assert first.latency_ms is not None
    assert first.latency_ms.median == 1.0
    assert isinstance(end, EndEvent)
    assert end.result is not None
    assert (end.state, end.result.speedup, end.error) == ("succeeded", 1.5, None)
    assert job.last.state == "succeeded"


def test_a_failure_is_an_event_to_who_watches_and_an_error_to_who_waits(job_of: Jobs) -> None:
    job = job_of(Server([shown("failed", 0.1, error=PROBLEM)]))
    *_, end = job.watch()
    assert isinstance(end, EndEvent)
    assert isinstance(end.error, InvalidModelError)
    with pytest.raises(InvalidModelError, match="it is none"):
        job.wait()
    with pytest.raises(InvalidModelError, match="it is none"):
        _ = job.result


def test_waiting_gives_the_result_which_is_asked_for_once(job_of: Jobs) -> None:
    server = Server([shown("running", 0.5, "search"), succeeded()])
    job = job_of(server)
    assert job.wait(60).speedup == 1.5
    before = len(server.asked)
    assert job.result == job.wait()
    assert len(server.asked) == before + 1  # of ``wait``


def test_waiting_ends_at_the_timeout(job_of: Jobs, clock: FakeClock) -> None:
    job = job_of(Server([shown("running", 0.25, "search")]))
    start = clock.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"running at 25% after 7\.2 seconds"):
        job.wait(7.2)
    assert clock.monotonic() - start == pytest.approx(7.2)


def test_a_result_of_an_unfinished_job_is_refused(job_of: Jobs) -> None:
    job = job_of(Server([shown("running", 0.25, "search")]))
    with pytest.raises(NotFinishedError, match="it is running"):
        _ = job.result


def test_a_download_has_the_paths(job_of: Jobs, tmp_path: Path) -> None:
    found = job_of(Server([succeeded()])).download(tmp_path / "out")
    assert found.engine_path == tmp_path / "out" / "engine.onnx"
    assert found.report_path == tmp_path / "out" / "report.html"
    assert (found.engine_path.read_bytes(), found.report_path.read_bytes()) == (ENGINE, REPORT)
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8")) == found.json
    assert found.speedup == 1.5


def test_a_cancelled_job_has_no_result(job_of: Jobs) -> None:
    job = job_of(Server([shown("cancelled", 0.2)], deletes=200))
    assert job.cancel().state == "cancelled"
    with pytest.raises(StageCancelledError):
        job.wait()


def test_a_finished_job_is_deleted(job_of: Jobs) -> None:
    server = Server([succeeded()])
    job_of(server).delete()
    assert server.asked[-1] == "DELETE /v1/jobs/j1"


def test_a_running_job_is_not_deleted(job_of: Jobs) -> None:
    server = Server([shown("running", 0.5, "search")])
    with pytest.raises(NotFinishedError, match="only a finished job"):
        job_of(server).delete()
    assert "DELETE /v1/jobs/j1" not in server.asked


def test_a_server_that_deletes_nothing_is_named(job_of: Jobs) -> None:
    with pytest.raises(ServiceError, match="deletes no jobs"):
        job_of(Server([succeeded()], deletes=200)).delete()


def test_a_job_is_shown_by_its_id_and_state(job_of: Jobs) -> None:
    assert repr(job_of(Server([succeeded()]))) == "Job('j1', 'queued')"


def test_a_job_for_several_types_of_gpu_is_asked_type_by_type(job_of: Jobs) -> None:
    branches: list[dict[str, object]] = [
        {"gpu": gpu, "id": f"of {gpu}", "state": "running", "stage": None, "progress": 0.5} for gpu in ("L4", "A10")
    ]
    job = job_of(Server([shown("running", 0.5, branches=branches)]))
    assert {gpu: branch.id for gpu, branch in job.branches().items()} == {"L4": "of L4", "A10": "of A10"}
    with pytest.raises(InvalidRequestError, match="each of its types of GPU: L4, A10"):
        _ = job.result
    with pytest.raises(InvalidRequestError, match="each of its types of GPU: L4, A10"):
        job.wait()
