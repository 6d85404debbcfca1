from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from service.errors import DamagedArtifactError
from service.jobs.records import Job, NewJob
from service.jobs.resources import Deps
from service.jobs.store import JobStore
from service.jobs.upkeep.log_text import TAIL_LINES, KnownTails, LogTails
from service.settings import Settings
from service.worker.stage_log import LOG_NAME
from tests.fakes import FakeClock
from tests.service.conftest import Server
from tests.service.launch_server import fake_deps


def log(server: Server, job_id: object) -> str:
    answer = server.client.get(f"/v1/jobs/{job_id}/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.text


def test_log_says_when_what_happened(server: Server) -> None:
    job = server.wait(server.submit(trials=1, seconds=0.05)["id"])
    text = log(server, job["id"])
    for line in (r"begins: pipeline fake-1, Python \S+, onnxruntime \S+, .*", "stage search", r"trial: took \d+\.\d s", "ends: improved"):
        assert re.search(rf"(?m)^\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ {line}$", text), line
    assert "trial 0: None, None layers quantized, inside the budget, the best so far\n" in text
    assert job["log_tail"] == text.splitlines()[-20:]
    assert server.client.get(f"/v1/jobs/{job['id']}/artifacts/log.txt").text == text
    events = server.client.get(f"/v1/jobs/{job['id']}/events").text
    assert '"line":"ends: improved"' in events


def test_log_is_read_while_the_job_runs(server: Server) -> None:
    job_id = server.submit(trials=1, seconds=30)["id"]
    deadline = time.monotonic() + 20
    while "stage search" not in log(server, job_id):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    tail = server.client.get(f"/v1/jobs/{job_id}").json()["log_tail"]
    assert any(line.endswith("stage search") for line in tail)
    server.client.post(f"/v1/jobs/{job_id}/cancel")


def test_log_says_why_a_job_failed_and_what_crashed(server: Server) -> None:
    failed = server.wait(server.submit(fail="input")["id"])
    assert "failed: model: it is only a fake\n" in log(server, failed["id"])
    crashed = server.wait(server.submit(trials=1, fail="crash")["id"])
    assert re.search(r"Z warning: trial failed: .*SIGABRT", log(server, crashed["id"]))


def test_queued_job_has_an_empty_log(server: Server) -> None:
    first, second = server.submit(trials=1, seconds=1)["id"], server.submit(trials=0)["id"]
    assert log(server, second) == ""
    assert server.client.get(f"/v1/jobs/{second}").json()["log_tail"] == []
    server.wait(first)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    job, _ = store.create(NewJob("one", "onnxruntime-cpu", {}, {}))
    store.close()
    return job


def test_a_log_that_hangs_is_not_waited_for_and_those_that_do_not_are_shown(job: Job) -> None:
    goes_on = threading.Event()
    asked: list[str] = []

    def tail(one: Job) -> tuple[str, ...]:
        asked.append(one.id)
        assert goes_on.wait(30)
        return (f"log of {one.id}",)

    tails = LogTails(tail, seconds=0.05)
    assert [tails.of(job) for _ in range(9)] == [()] * 9
    assert len(asked) < 9  # callers do not pile up behind it
    goes_on.set()
    other = replace(job, new=replace(job.new, id="two"))
    assert LogTails(tail, seconds=30).of(other) == ("log of two",)


def test_what_a_log_cannot_be_read_for_is_said(job: Job) -> None:
    def tail(_: Job) -> tuple[str, ...]:
        raise DamagedArtifactError("log.txt: it is damaged", fix="None.")

    with pytest.raises(DamagedArtifactError):
        LogTails(tail).of(job)


@pytest.fixture
def deps(tmp_path: Path) -> Iterator[Deps]:
    deps = fake_deps(Settings(data_dir=tmp_path / "data"), tmp_path / "record")
    deps.workspace("one").mkdir(parents=True)
    yield deps
    deps.close()


def test_tail_is_the_log_as_it_is_at_every_look(job: Job, deps: Deps) -> None:
    tails, path = KnownTails(deps), deps.workspace("one") / LOG_NAME
    assert tails.of(job) == ()
    for number in range(TAIL_LINES + 5):
        with path.open("a") as log:
            log.write(f"line {number}\n")
        expected = tuple(f"line {one}" for one in range(number + 1))[-TAIL_LINES:]
        assert [tails.of(job), tails.of(job)] == [expected] * 2
    path.write_text("")
    assert tails.of(job) == ()


def test_log_that_was_written_anew_with_the_same_length_is_another(job: Job, deps: Deps) -> None:
    tails, path = KnownTails(deps), deps.workspace("one") / LOG_NAME
    path.write_text("first\n")
    found = path.stat()
    assert tails.of(job) == ("first",)
    other = path.with_name("other")
    other.write_text("other\n")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)
    assert tails.of(job) == ("other",)


def test_log_is_read_again_only_where_it_has_changed(job: Job, deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    tails, path, read = KnownTails(deps), deps.workspace("one") / LOG_NAME, []

    def read_lines(source: BinaryIO, _: Path) -> Iterator[bytes]:
        read.append(1)
        yield from source

    monkeypatch.setattr("service.jobs.upkeep.log_text.plain_lines", read_lines)
    path.write_text("a line\n")
    assert [tails.of(job) for _ in range(5)] == [("a line",)] * 5
    assert len(read) == 1
    stored = deps.artifacts.put(path)
    ended = replace(job, artifacts={LOG_NAME: stored})
    path.unlink()
    assert [tails.of(ended) for _ in range(5)] == [("a line",)] * 5
    assert len(read) == 2
    assert tails.of(job) == ()


def test_of_many_logs_the_longest_known_are_forgotten(job: Job, deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.jobs.upkeep.log_text._KNOWN", 2)
    tails = KnownTails(deps)
    for name in ("one", "two", "three", "one"):
        deps.workspace(name).mkdir(parents=True, exist_ok=True)
        (deps.workspace(name) / LOG_NAME).write_text(f"of {name}\n")
        assert tails.of(replace(job, new=replace(job.new, id=name))) == (f"of {name}",)
    assert set(tails._known) == {"three", "one"}
