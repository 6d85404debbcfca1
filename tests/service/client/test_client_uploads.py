"""How the client sends files: only what the server lacks, and again where it breaks off."""

from __future__ import annotations

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path

import httpx

from tests.service.client.test_client import client_of, missing


def test_upload_sends_the_bytes_and_the_key(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"x" * 3_000_000)

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return missing(request)
        assert (request.method, request.url.path) == ("POST", "/v1/files")
        assert request.headers["authorization"] == "Bearer secret"
        assert request.headers["content-length"] == "3000000"
        assert "transfer-encoding" not in request.headers
        return httpx.Response(201, json={"id": f"sha256:{hashlib.sha256(request.read()).hexdigest()}", "size_bytes": 3_000_000})

    with client_of(handler, "secret") as client:
        assert client.upload(path) == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_model_with_external_data_is_sent_as_one_archive(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x0a\x08location\x12\x06m.data")
    (tmp_path / "m.data").write_bytes(b"weights")
    sent: list[list[str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return missing(request)
        sent.append(zipfile.ZipFile(BytesIO(request.read())).namelist())
        return httpx.Response(201, json={"id": "sha256:0", "size_bytes": 1})

    with client_of(handler) as client:
        client.upload_model(tmp_path / "m.onnx")
    assert sent == [["m.onnx", "m.data"]]
