from __future__ import annotations

import base64
import hashlib
import http.client
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from tests.service.conftest import Server

BOUNDARY = "multipart/form-data; boundary=x"


def unfinished(server: Server) -> list[str]:
    return [path.name for path in (server.deps.settings.data_dir / "store" / "unfinished").iterdir()]


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = dict(answer.json())
    assert set(problem) == {"type", "title", "status", "detail", "fix"}
    assert (problem["type"], problem["status"]) == (f"urn:onnx-trt-optimizer:problem:{slug}", status)
    assert problem["detail"]
    assert problem["fix"]
    return problem


def test_raw_and_multipart_uploads_of_the_same_bytes_have_the_same_id(server: Server) -> None:
    data = b"line\r\n--x\r\n" * 10_000
    raw = server.client.post("/v1/files", content=data)
    form = server.client.post("/v1/files", files={"file": ("weights.bin", data)})
    assert (raw.status_code, form.status_code) == (201, 201)
    assert raw.json() == form.json() == {"id": f"sha256:{hashlib.sha256(data).hexdigest()}", "size_bytes": len(data)}


def test_empty_file_is_a_file(server: Server) -> None:
    assert server.client.post("/v1/files", content=b"").json()["size_bytes"] == 0


def test_upload_takes_constant_memory(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (bytes([index]) * 2**16 for index in range(60))

    server.client.post("/v1/files", content=b"warm up")
    tracemalloc.start()
    try:
        assert server.client.post("/v1/files", content=chunks()).status_code == 201
        assert tracemalloc.get_traced_memory()[1] < 2**23  # pieces of a MiB, of a few MiB in all
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", [True, False])
def test_file_over_the_limit_is_refused_and_leaves_nothing(server: Server, declared: bool) -> None:
    data = bytes(server.deps.settings.max_upload_bytes + 1)
    answer = server.client.post("/v1/files", content=data if declared else iter([data[:1000], data[1000:]]))
    assert_problem(answer, 413, "too-large")
    assert unfinished(server) == []


def test_part_over_the_limit_is_refused_and_leaves_nothing(server: Server) -> None:
    data = bytes(server.deps.settings.max_upload_bytes + 1)
    assert_problem(server.client.post("/v1/jobs", files={"model": data, "calibration": b"c"}), 413, "too-large")
    assert unfinished(server) == []


def test_text_over_its_limit_is_refused(server: Server) -> None:
    answer = server.client.post("/v1/jobs", files={"model": b"m", "calibration": b"c"}, data={"config": "x" * (2**20 + 1)})
    assert_problem(answer, 413, "too-large")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "slug"),
    [
        ("multipart/form-data", b"", 400, "malformed-request"),
        (BOUNDARY, b"no boundary here", 400, "malformed-request"),
        (BOUNDARY, b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ndata', 400, "malformed-request"),
        (BOUNDARY, b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\ndata\r\n--x--\r\n', 422, "invalid-request"),
        (BOUNDARY, b"--x\r\nContent-Disposition: form-data\r\n\r\ndata\r\n--x--\r\n", 422, "invalid-request"),
        (BOUNDARY, b"--x--\r\n", 422, "invalid-request"),
    ],
)
def test_malformed_multipart_is_refused_and_leaves_nothing(server: Server, content_type: str, body: bytes, status: int, slug: str) -> None:
    assert_problem(server.client.post("/v1/files", content=body, headers={"Content-Type": content_type}), status, slug)
    assert unfinished(server) == []


def test_field_given_twice_is_refused(server: Server) -> None:
    answer = server.client.post("/v1/jobs", files=[("model", b"a"), ("model", b"b")])
    assert "given twice" in str(assert_problem(answer, 422, "invalid-request")["detail"])


def test_interrupted_upload_leaves_nothing(server: Server) -> None:
    connection = http.client.HTTPConnection(server.client.base_url.host, server.client.base_url.port or 0)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(b"only this")
    connection.close()
    assert server.client.post("/v1/files", content=b"next").status_code == 201
    assert unfinished(server) == []


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"config": {"threads": 1, "threads": 2}}', b'{"model_id": "\\ud800"}']
)
def test_json_body_that_is_no_object_is_refused(server: Server, body: bytes) -> None:
    answer = server.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400, "malformed-request")


def test_other_content_types_are_refused(server: Server) -> None:
    assert_problem(server.client.post("/v1/jobs", content=b"model", headers={"Content-Type": "text/plain"}), 415, "unsupported-media-type")


def digest_of(data: bytes) -> dict[str, str]:
    return {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}


def test_bytes_with_the_stated_digest_are_stored(server: Server) -> None:
    assert server.client.post("/v1/files", content=b"bytes", headers=digest_of(b"bytes")).status_code == 201


@pytest.mark.parametrize("stated", [digest_of(b"other"), {"Content-Digest": "sha-256=:AAAA:"}, {"Content-Digest": "sha-256=\xff"}])
def test_bytes_with_another_digest_are_refused_and_leave_nothing(server: Server, stated: dict[str, str]) -> None:
    headers = {name.encode(): value.encode("latin-1") for name, value in stated.items()}
    answer = server.client.post("/v1/files", content=b"bytes of test", headers=headers)
    assert "Content-Digest" in str(assert_problem(answer, 400, "malformed-request")["detail"])
    assert unfinished(server) == []
    assert server.deps.artifacts.find(hashlib.sha256(b"bytes of test").hexdigest()) is None


def test_stored_file_is_found_by_its_digest(server: Server) -> None:
    stored = server.client.post("/v1/files", content=b"to be found").json()
    assert server.client.get(f"/v1/files/{stored['id']}").json() == stored
    assert server.client.get(f"/v1/files/{stored['id'].removeprefix('sha256:')}").json() == stored


@pytest.mark.parametrize("file_id", ["sha256:" + "0" * 64, "sha256:..", "x", "%2e%2e", "sha256:" + "A" * 64])
def test_file_that_is_not_here_is_said_so(server: Server, file_id: str) -> None:
    assert_problem(server.client.get(f"/v1/files/{file_id}"), 404, "not-found")


def test_disk_without_room_is_a_507(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    for answer in (
        server.client.post("/v1/files", content=bytes(5000)),
        server.client.post("/v1/files", files={"file": bytes(5000)}),
        server.client.post("/v1/jobs", files={"model": b"m", "calibration": b"c"}),
    ):
        assert "1000 bytes are free" in str(assert_problem(answer, 507, "insufficient-storage")["detail"])
    assert unfinished(server) == []


def test_many_fields_are_refused(server: Server) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert_problem(server.client.post("/v1/jobs", content=b"&".join([b"a=b"] * 100_000), headers=headers), 400, "malformed-request")
