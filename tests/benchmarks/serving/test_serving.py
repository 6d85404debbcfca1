"""What the benchmark of serving asks for and counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.serving.__main__ import page
from benchmarks.serving.polling import Paired, Poller, Polls, job_seconds
from benchmarks.serving.uploads import Uploads


class _Server(ThreadingHTTPServer):
    """Answers 200, or a status of its own, and counts."""

    status = 200
    asked = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_every_poll_is_an_answer_that_is_counted(server: _Server) -> None:
    poller = Poller(server.address, "/v1/jobs/1", 100.0)
    with poller:
        time.sleep(0.3)
    polls = poller.polls()
    assert len(polls.seconds) == server.asked > 0
    assert min(polls.seconds) > 0.0
    assert polls.per_second <= 120.0  # never faster than asked for, but for the first of each connection


def test_answer_that_is_none_ends_in_an_error(server: _Server) -> None:
    server.status = 503
    poller = Poller(server.address, "/v1/jobs/1", 100.0)
    with poller:
        time.sleep(0.1)
    with pytest.raises(RuntimeError, match="503"):
        poller.polls()


def test_jobs_come_in_turns_and_only_every_other_one_is_polled(server: _Server) -> None:
    done: list[str] = []
    polled: list[str] = []

    def wait(job: str) -> None:
        time.sleep(0.05)
        done.append(job)

    def poller(job: str) -> Poller:
        polled.append(job)
        return Poller(server.address, f"/v1/jobs/{job}", 100.0)

    paired = job_seconds(str, wait, poller, pairs=2)
    assert done == ["0", "1", "3", "2"]
    assert polled == ["1", "3"]
    assert (len(paired.alone_seconds), len(paired.polled_seconds), len(paired.polls)) == (2, 2, 2)


def test_page_says_what_was_found_beside_the_bar() -> None:
    uploads = Uploads(1 << 30, (3e8, 4e8, 2e8), 5 << 20, (0.001, 0.02))
    paired = Paired((10.0, 10.0), (10.0, 11.0), (Polls((0.001, 0.002), 200.0), Polls((0.003,), 198.0)))
    text = page(uploads, paired, "A machine.")
    assert "| upload with hashing, curl | median 300 MB/s, from 200 to 400 | 300 MB/s |" in text
    assert "| memory that the server grew by meanwhile | 5.0 MiB | 64 MiB |" in text
    assert "worst 20.0 ms" in text
    assert "| status polls a second, really asked | 199 | 200 |" in text
    assert "median 1.050, from 1.000 to 1.100" in text
