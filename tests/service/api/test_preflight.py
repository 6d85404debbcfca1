"""What the server tells of a model before a job: in a child of its own, for the tenant's own uploads, with nothing left behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.jobs.records import StoredFile
from service.jobs.resources import Deps
from tests import models
from tests.service.conftest import Server
from tests.service.intake.test_unpacking import zip_of


def told(server: Server, data: bytes, query: str = "") -> tuple[int, dict[str, object]]:
    """Upload a file and ask; return the status and the answer."""
    sent = server.client.post("/v1/files", content=data)
    assert sent.status_code == 201
    answer = server.client.post(f"/v1/files/{sent.json()['id']}/preflight{query}")
    return answer.status_code, dict(answer.json())


@pytest.mark.parametrize("is_packed", [False, True])
def test_layers_targets_data_and_time_are_told(server: Server, *, is_packed: bool) -> None:
    data = models.batch_norm().SerializeToString()
    status, found = told(server, zip_of({"net/model.onnx": data}) if is_packed else data)
    assert status == 200
    assert found["layers"] == {"Conv": 1}
    assert found["float_type"] == "fp32"
    assert [one["name"] for one in found["inputs"]] == [models.batch_norm().graph.input[0].name]  # type: ignore[attr-defined]  # JSON
    targets = {one["target"]: one for one in found["targets"]}  # type: ignore[attr-defined]  # JSON
    assert targets["onnxruntime-cpu"]["layers"]["int8"] == 1
    seconds = found["job_seconds"]
    assert isinstance(seconds, list)
    assert 10 < seconds[0] < seconds[1]
    assert [path.name for path in server.deps.settings.data_dir.rglob("preflight-*")] == []


def test_more_samples_take_longer(server: Server) -> None:
    data = models.batch_norm().SerializeToString()
    (_, few), (_, many) = (told(server, data, f"?samples={samples}") for samples in (1, 10**9))
    assert few["job_seconds"][0] < many["job_seconds"][0]  # type: ignore[index]  # JSON


@pytest.mark.parametrize("data", [b"no model", zip_of({"readme.txt": b"no model"})])
def test_what_is_no_model_is_refused_with_a_fix(server: Server, data: bytes) -> None:
    status, problem = told(server, data)
    assert status == 422
    assert problem["fix"]
    assert [path.name for path in server.deps.settings.data_dir.rglob("preflight-*")] == []


def test_a_file_that_is_not_here_and_a_count_out_of_range_are_refused(server: Server) -> None:
    assert server.client.post(f"/v1/files/sha256:{'0' * 64}/preflight").status_code == 404
    status, _ = told(server, b"no model", "?samples=0")
    assert status == 422


def test_nobody_waits_for_callers_who_hung_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    def slow(stored: StoredFile, samples: int, deps: Deps) -> dict[str, object]:
        asked.append(stored.id)
        begun.set()
        may_end.wait(20)
        return {}

    monkeypatch.setattr("service.api.files.preflight_of", slow)
    first, left, last = (server.client.post("/v1/files", content=data).json()["id"] for data in (b"first", b"left", b"last"))
    address = str(server.client.base_url).rstrip("/")
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(httpx.post, f"{address}/v1/files/{first}/preflight")
        assert begun.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/files/{left}/preflight", timeout=httpx.Timeout(20, read=0.5))
        behind = pool.submit(httpx.post, f"{address}/v1/files/{last}/preflight", timeout=30)
        may_end.set()
        assert (waiting.result(30).status_code, behind.result(30).status_code) == (200, 200)
    assert sorted(asked) == sorted([first, last])
