"""What the server has is not sent again, and a broken upload is tried again."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import httpx
import pytest

from tests.service.client.test_client import client_of, missing


def test_what_the_server_has_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"x" * 1000)
    file_id = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()

    def handler(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("GET", f"/v1/files/{file_id}")
        return httpx.Response(200, json={"id": file_id, "size_bytes": 1000})

    with client_of(handler) as client:
        assert client.upload(path) == file_id


def test_upload_that_breaks_off_is_tried_again_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"x" * 1000)
    digest = base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method == "GET":
            return missing(request)
        assert request.headers["content-digest"] == f"sha-256=:{digest}:"
        if asked.count("POST") < 3:
            raise httpx.WriteError("broken")
        return httpx.Response(201, json={"id": "sha256:0", "size_bytes": 1000})

    with client_of(handler) as client:
        assert client.upload(path) == "sha256:0"
    assert asked == ["GET", "POST"] * 3


@pytest.mark.parametrize("status", [404, 405])
def test_older_server_that_cannot_be_asked_gets_the_bytes(status: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"x")

    def handler(request: httpx.Request) -> httpx.Response:
        answer = {"id": "sha256:0", "size_bytes": 1}
        return httpx.Response(status, text="nothing here") if request.method == "GET" else httpx.Response(201, json=answer)

    with client_of(handler) as client:
        assert client.upload(path) == "sha256:0"
