from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.client.answers import ServerUnavailableError
from service.client.downloads import DownloadError, download
from service.client.following import RECONNECT_SECONDS
from service.client.views import ArtifactView
from service.errors import UnsatisfiableRangeError
from tests.service.client.test_client import FakeClock

CONTENT = bytes(range(256)) * 100
PROMISED = ArtifactView("engine.onnx", hashlib.sha256(CONTENT).hexdigest())


class Breaking(httpx.SyncByteStream):
    """Gives some bytes, then the connection breaks."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise httpx.ReadError("broken")


class BreakingServer:
    """Sends so many bytes an answer, then breaks off; with ``knows_ranges`` from where it is asked to."""

    def __init__(self, *counts: int, knows_ranges: bool = True) -> None:
        self.counts = list(counts)
        self.knows_ranges = knows_ranges
        self.asked: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers.get("range"))
        begin = int(request.headers["range"].removeprefix("bytes=").rstrip("-")) if self.knows_ranges and "range" in request.headers else 0
        if not self.counts:
            return httpx.Response(206 if begin else 200, content=CONTENT[begin:])
        return httpx.Response(206 if begin else 200, stream=Breaking(CONTENT[begin : begin + self.counts.pop(0)]))


def downloaded(server: BreakingServer, folder: Path) -> bytes:
    with httpx.Client(base_url="http://server", transport=httpx.MockTransport(server)) as http:
        return download(http, "/engine", folder, PROMISED, FakeClock()).read_bytes()


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    server = BreakingServer(1000, 500)
    assert downloaded(server, tmp_path) == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert [path.name for path in tmp_path.iterdir()] == ["engine.onnx"]


def test_a_server_without_ranges_sends_it_whole_again(tmp_path: Path) -> None:
    assert downloaded(BreakingServer(1000, 500, knows_ranges=False), tmp_path) == CONTENT


def test_a_break_behind_the_last_byte_loses_nothing(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return httpx.Response(416, json=UnsatisfiableRangeError("range", fix="None.", size_bytes=len(CONTENT)).problem())
        return httpx.Response(200, stream=Breaking(CONTENT))

    with httpx.Client(base_url="http://server", transport=httpx.MockTransport(handler)) as http:
        assert download(http, "/engine", tmp_path, PROMISED, FakeClock()).read_bytes() == CONTENT


def test_a_server_that_stays_away_is_given_up(tmp_path: Path) -> None:
    clock = FakeClock()

    def handler(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, stream=Breaking(CONTENT[:1000]))

    with (
        httpx.Client(base_url="http://server", transport=httpx.MockTransport(handler)) as http,
        pytest.raises(ServerUnavailableError),
    ):
        download(http, "/engine", tmp_path, PROMISED, clock)
    assert RECONNECT_SECONDS < clock.now < 2 * RECONNECT_SECONDS
    assert list(tmp_path.iterdir()) == []


def test_another_file_behind_the_break_is_found_out(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return httpx.Response(206, content=bytes(len(CONTENT) - 1000))
        return httpx.Response(200, stream=Breaking(CONTENT[:1000]))

    with (
        httpx.Client(base_url="http://server", transport=httpx.MockTransport(handler)) as http,
        pytest.raises(DownloadError, match="was promised"),
    ):
        download(http, "/engine", tmp_path, PROMISED, FakeClock())
