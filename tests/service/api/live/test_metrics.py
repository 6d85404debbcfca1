from __future__ import annotations

import re

from tests.service.conftest import Server

SAMPLE = re.compile(r'onnx_trt_optimizer_(\w+)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)')


def figures(server: Server) -> dict[str, float]:
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, float] = {}
    for line in answer.text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP onnx_trt_optimizer_\w+ .+|TYPE onnx_trt_optimizer_\w+ (gauge|counter|summary))", line), line
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        found[sample[1] + (sample[2] or "")] = float(sample[3])
    return found


def test_jobs_are_counted_by_state_with_their_durations(server: Server) -> None:
    before = figures(server)
    server.wait(server.submit(trials=1, seconds=0.5)["id"])
    server.wait(server.submit(fail="input")["id"])
    running, queued = server.submit(trials=1, seconds=30)["id"], server.submit(trials=0)["id"]
    server.wait(running, "running")
    after = figures(server)
    for state in ("succeeded", "failed", "running", "queued"):
        name = f'jobs{{state="{state}"}}'
        assert after[name] - before[name] == 1
    assert after["queue_length"] == 1
    name = 'job_duration_seconds_{}{{state="succeeded"}}'
    assert after[name.format("count")] - before.get(name.format("count"), 0) == 1
    assert after[name.format("sum")] - before.get(name.format("sum"), 0) >= 0.5
    for job_id in (queued, running):
        server.client.post(f"/v1/jobs/{job_id}/cancel")


def test_requests_and_uploads_are_counted(server: Server) -> None:
    before = figures(server)
    server.client.post("/v1/files", content=b"x" * 1000)
    for _ in range(3):
        server.client.get("/v1/jobs/none")
    server.client.get("/nothing")
    after = figures(server)
    assert after["uploads_total"] - before["uploads_total"] == 1
    name = 'request_body_bytes_total{route="/v1/files"}'
    assert after[name] - before.get(name, 0) == 1000
    name = 'requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"}'
    assert after[name] - before.get(name, 0) == 3
    name = 'requests_total{method="GET",route="none",status="404"}'
    assert after[name] - before.get(name, 0) == 1
    assert after['request_duration_seconds_count{route="/v1/jobs/{job_id}"}'] >= 3
    assert after['request_duration_seconds_sum{route="/v1/jobs/{job_id}"}'] > 0


def test_disk_and_readiness_are_told(server: Server) -> None:
    found = figures(server)
    assert found["disk_free_bytes"] > 0
    assert found["ready"] == 1
