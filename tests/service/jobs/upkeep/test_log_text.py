from __future__ import annotations

import re
import time

from tests.service.conftest import Server


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
