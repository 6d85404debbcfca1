"""Large uploads in constant memory, and parts of uploads that a kill cut off."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.live_server import LiveServer, Watch, live_server

MIB = 2**20
UPLOAD_MIB = int(os.environ.get("HOSTILE_UPLOAD_MIB", "300"))
MAX_RISE_BYTES = 64 * MIB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path) as running:
        yield running


def content(mebibytes: int) -> Iterator[bytes]:
    block = os.urandom(MIB)
    yield from (index.to_bytes(8, "little") + block[8:] for index in range(mebibytes))


def test_upload_takes_no_more_memory_the_larger_it_is(server: LiveServer) -> None:
    server.client.post("/v1/files", content=b"warm up")
    digest = hashlib.sha256()

    def sent() -> Iterator[bytes]:
        for block in content(UPLOAD_MIB):
            digest.update(block)
            yield block

    watch = Watch(str(server.client.base_url), server.process.pid)
    try:
        answer = server.client.post("/v1/files", content=sent())
    finally:
        watch.close()
    assert answer.json() == {"id": f"sha256:{digest.hexdigest()}", "size_bytes": UPLOAD_MIB * MIB}
    rise = watch.worst_resident_bytes - watch.first_resident_bytes
    assert rise <= MAX_RISE_BYTES, f"{rise / MIB:.0f} MiB more while {UPLOAD_MIB} MiB came"


@pytest.mark.long
def test_part_that_a_kill_cut_off_is_removed_at_the_next_start(tmp_path: Path) -> None:
    first = LiveServer(tmp_path, {})
    try:
        with socket.create_connection(("127.0.0.1", first.port)) as connection:
            head = f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:{first.port}\r\nContent-Length: {100 * MIB}\r\n\r\n"
            connection.sendall(head.encode() + bytes(5 * MIB))
            unfinished = tmp_path / "data" / "store" / "unfinished"
            while not any(path.stat().st_size >= MIB for path in unfinished.iterdir()):
                first.client.get("/healthz")
            first.end(signal.SIGKILL)
    finally:
        first.end(signal.SIGKILL)
    assert len(list(unfinished.iterdir())) == 1
    with live_server(tmp_path):
        assert list(unfinished.iterdir()) == []


@pytest.mark.long
def test_server_starts_whatever_folders_are_left(tmp_path: Path) -> None:
    deep = tmp_path / "data" / "jobs" / "left-by-an-older-version"
    deep.mkdir(parents=True)
    handle = os.open(deep, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d" * 100, dir_fd=handle)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    (deep.parent / "a-file").write_text("no folder")
    (deep.parent / "a-link").symlink_to("/")
    with live_server(tmp_path) as server:
        assert list((server.data / "jobs").iterdir()) == []
