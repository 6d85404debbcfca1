from __future__ import annotations

import time
import uuid
from typing import cast

import httpx
import psutil
import pytest

from engine_builder.config.config import Config, config_json, json_schema
from tests.fakes import executions, fake_model
from tests.service.conftest import Server
from tests.service.intake.test_unpacking import zip_of
from tests.service.jobs.test_uploads import assert_problem

FILES = {"model": fake_model(trials=1), "calibration": b"numbers"}


def upload(server: Server, data: bytes) -> str:
    return str(server.client.post("/v1/files", content=data).json()["id"])


def artifacts(server: Server, job_id: object) -> dict[str, dict[str, object]]:
    listed = server.client.get(f"/v1/jobs/{job_id}/artifacts").json()["artifacts"]
    return {item["name"]: item for item in listed}


def test_submitted_job_runs_and_everything_it_made_is_downloaded(server: Server) -> None:
    job = server.submit(trials=3)
    assert job["state"] == "queued"
    assert job["config"] == config_json(Config())

    done = server.wait(job["id"])

    assert (done["state"], done["progress"], done["error"]) == ("succeeded", 1.0, None)
    assert [trial["index"] for trial in cast("list[dict[str, object]]", done["trials"])] == [0, 1, 2]
    engine = server.client.get(f"/v1/jobs/{job['id']}/engine")
    assert engine.content == b'engine of {"trials": 3}'
    assert "engine.onnx" in engine.headers["content-disposition"]
    listed = artifacts(server, job["id"])
    assert set(listed) == {"engine.onnx", "report.json", "report.html", "log.txt"}
    for item in listed.values():
        answer = server.client.get(str(item["link"]))
        assert (answer.status_code, len(answer.content)) == (200, item["size_bytes"])
        assert answer.headers["etag"] == f'"{item["sha256"]}"'
    assert server.has_cleaned_up(job["id"])


def test_report_is_shown_in_a_sandbox(server: Server) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    headers = server.client.get(f"/v1/jobs/{job['id']}/artifacts/report.html").headers
    assert headers["content-type"].startswith("text/html")
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["x-content-type-options"] == "nosniff"


def test_progress_never_decreases_while_a_job_runs(server: Server) -> None:
    job_id = server.submit(trials=2, seconds=0.4)["id"]
    seen: list[tuple[float, str]] = []
    while not seen or seen[-1][1] not in {"succeeded", "failed"}:
        job = server.client.get(f"/v1/jobs/{job_id}").json()
        seen.append((job["progress"], job["state"]))
        time.sleep(0.02)
    progress = [value for value, _ in seen]
    assert progress == sorted(progress)
    assert len(set(progress)) > 3


def test_job_may_name_earlier_uploads(server: Server) -> None:
    model, calibration = upload(server, fake_model(trials=0)), upload(server, b"numbers")
    body = {"model_id": model, "calibration_id": calibration, "validation_id": calibration}
    for answer in (
        server.client.post("/v1/jobs", json={**body, "config": {"threads": 2}}),
        server.client.post("/v1/jobs", data={**body, "config": '{"threads": 2}'}),
    ):
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
        assert answer.json()["config"]["threads"] == 2
        assert server.wait(answer.json()["id"])["state"] == "succeeded"


def test_metric_of_ones_own_goes_with_the_job_to_its_engine(server: Server) -> None:
    sent = server.client.post("/v1/jobs", files={**FILES, "metric": b"a graph"})
    named = server.client.post("/v1/jobs", files=FILES, data={"metric_id": upload(server, b"a graph")})
    for answer in (sent, named):
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert job["config"]["accuracy"]["metric"] == "custom"
        assert server.wait(job["id"])["state"] == "succeeded"
        assert server.client.get(f"/v1/jobs/{job['id']}/engine").content.endswith(b" scored by a graph")


def test_metric_of_ones_own_is_part_of_what_an_idempotency_key_stands_for(server: Server) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first, again, other = (
        server.client.post("/v1/jobs", files={**FILES, "metric": graph}, headers=headers) for graph in (b"one", b"one", b"two")
    )
    assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("files", "config", "words"),
    [
        ({**FILES, "metric": b"a graph"}, '{"accuracy": {"metric": "top1"}}', "found top1 together with a metric model"),
        (FILES, '{"accuracy": {"metric": "custom"}}', "found custom, but no metric model"),
    ],
)
def test_metric_named_that_is_not_the_one_sent_is_refused(server: Server, files: dict[str, bytes], config: str, words: str) -> None:
    answer = server.client.post("/v1/jobs", files=files, data={"config": config})
    assert_problem(answer, 422, "invalid-config")
    assert words in answer.json()["detail"]


def test_model_may_come_in_an_archive_with_its_external_data(server: Server) -> None:
    archive = zip_of({"net/model.onnx": fake_model(trials=0), "net/weights.bin": b"w"})
    job = server.client.post("/v1/jobs", files={**FILES, "model": archive}).json()
    assert server.wait(job["id"])["state"] == "succeeded"


def test_unsafe_archive_is_refused_without_a_job(server: Server) -> None:
    server.wait(server.submit(trials=0)["id"])
    before = len(server.deps.store.list())
    answer = server.client.post("/v1/jobs", files={**FILES, "model": zip_of({"../model.onnx": b"m"})})
    assert_problem(answer, 422, "invalid-model")
    assert len(server.deps.store.list()) == before
    assert list(server.deps.workspace("any").parent.iterdir()) == []


def test_bad_input_found_by_a_stage_fails_the_job_with_the_object_of_a_4xx(server: Server) -> None:
    job = server.wait(server.submit(fail="input")["id"])
    assert job["state"] == "failed"
    assert job["error"] == {
        "type": "urn:onnx-trt-optimizer:problem:invalid-model",
        "title": "Invalid ONNX model",
        "status": 422,
        "detail": "model: it is only a fake",
        "fix": "Send a real one.",
    }
    assert set(artifacts(server, job["id"])) == {"log.txt"}
    assert server.has_cleaned_up(job["id"])


def test_crash_of_a_trial_is_left_to_the_pipeline(server: Server) -> None:
    job = server.wait(server.submit(trials=1, fail="crash")["id"])
    trials = cast("list[dict[str, object]]", job["trials"])
    assert job["state"] == "succeeded"
    assert "SIGABRT" in str(trials[0]["failure"])


def test_bug_in_the_pipeline_fails_the_job_without_its_trace(server: Server) -> None:
    job = server.wait(server.submit(trials=0, fail="bug")["id"])
    error = cast("dict[str, object]", job["error"])
    assert (job["state"], error["status"]) == ("failed", 500)
    assert "ZeroDivisionError" not in str(error)


def test_cancel_ends_the_child_within_two_seconds(server: Server) -> None:
    job_id = server.submit(trials=1, seconds=30)["id"]
    server.wait(job_id, "running")
    while not (lines := [line for line in executions(server.record)[-1:] if line.startswith("begin trial/0")]):
        time.sleep(0.02)
    child = int(lines[0].split()[-1])

    begun = time.monotonic()
    answer = server.client.post(f"/v1/jobs/{job_id}/cancel")
    while psutil.pid_exists(child):
        assert time.monotonic() - begun < 2
        time.sleep(0.02)

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    again, shown = server.client.post(f"/v1/jobs/{job_id}/cancel").json(), server.client.get(f"/v1/jobs/{job_id}").json()
    assert {**again, "log_tail": ()} == {**shown, "log_tail": ()}  # the child's last lines may come in between
    assert server.wait(server.submit(trials=0)["id"])["state"] == "succeeded"  # the queue goes on
    assert server.has_cleaned_up(job_id)
    assert server.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_the_job_of_the_highest_priority_is_next(server: Server) -> None:
    def submit(priority: str) -> httpx.Response:
        files = {"model": fake_model(trials=0), "calibration": b"numbers"}
        return server.client.post("/v1/jobs", files=files, data={"priority": priority})

    first = server.submit(trials=1, seconds=0.5)
    server.wait(first["id"], "running")
    jobs = [submit(priority).json() for priority in ("0", "-1", "100")]
    assert [job["priority"] for job in jobs] == [0, -1, 100]
    for job in jobs:
        server.wait(job["id"])
    order = [job["id"] for job in sorted(jobs, key=lambda job: str(server.deps.store.get(job["id"]).started_at))]
    assert order == [jobs[2]["id"], jobs[0]["id"], jobs[1]["id"]]
    for wrong in ("101", "high", "1.5", ""):
        assert submit(wrong).status_code == 422, wrong


def test_cancelled_queued_job_never_runs(server: Server) -> None:
    first, second = server.submit(trials=1, seconds=0.5)["id"], server.submit(trials=0)["id"]
    assert server.client.post(f"/v1/jobs/{second}/cancel").json()["state"] == "cancelled"
    server.wait(first)
    server.wait(server.submit(trials=0)["id"])
    job = server.client.get(f"/v1/jobs/{second}").json()
    assert (job["state"], job["started_at"]) == ("cancelled", None)


def test_engine_of_an_unfinished_job_is_refused_with_its_state(server: Server) -> None:
    job_id = server.submit(trials=1, seconds=30)["id"]
    server.wait(job_id, "running")
    problem = assert_problem(server.client.get(f"/v1/jobs/{job_id}/engine"), 409, "job-not-succeeded")
    assert "running" in str(problem["detail"])
    server.client.post(f"/v1/jobs/{job_id}/cancel")
    problem = assert_problem(server.client.get(f"/v1/jobs/{job_id}/engine"), 409, "job-not-succeeded")
    assert "cancelled" in str(problem["detail"])


def test_idempotency_key_gives_the_same_job_for_the_same_request_only(server: Server) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = server.client.post("/v1/jobs", files=FILES, headers=headers)
    again = server.client.post("/v1/jobs", files=FILES, headers=headers)
    other = server.client.post("/v1/jobs", files=FILES, data={"config": '{"threads": 3}'}, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert_problem(other, 422, "invalid-request")
    assert_problem(server.client.post("/v1/jobs", files=FILES, headers={"Idempotency-Key": "x" * 256}), 422, "invalid-request")
    assert server.wait(first.json()["id"])["state"] == "succeeded"


@pytest.mark.parametrize(
    ("files", "config", "status", "slug"),
    [
        (("calibration",), "", 422, "invalid-request"),
        (("model",), "", 422, "invalid-request"),
        (("model", "calibration"), "{", 422, "invalid-config"),
        (("model", "calibration"), "[]", 422, "invalid-config"),
        (("model", "calibration"), '{"outputs": {"\\ud800": "logits"}}', 422, "invalid-config"),
        (("model", "calibration"), '{"accuracy": {"min_relative": NaN}}', 422, "invalid-config"),
        (("model", "calibration"), "[" * 100_000, 422, "invalid-config"),
        (("model", "calibration"), '{"treads": 2}', 422, "invalid-config"),
        (("model", "calibration"), '{"accuracy": {"min_relative": 1.5}}', 422, "invalid-config"),
        (("model", "calibration"), '{"target": "tpu"}', 422, "unsupported-target"),
        (("model", "calibration"), '{"precisions": ["int4"]}', 422, "invalid-config"),
    ],
)
def test_request_that_can_never_succeed_is_refused_at_once(
    server: Server, files: tuple[str, ...], config: str, status: int, slug: str
) -> None:
    before = len(server.deps.store.list())
    answer = server.client.post("/v1/jobs", files={name: FILES[name] for name in files}, data={"config": config})
    assert_problem(answer, status, slug)
    assert len(server.deps.store.list()) == before


def test_unknown_file_id_is_refused(server: Server) -> None:
    for file_id in (f"sha256:{'0' * 64}", "../../etc/passwd"):
        assert_problem(server.client.post("/v1/jobs", json={"model_id": file_id, "calibration_id": file_id}), 404, "not-found")


def test_file_and_id_for_the_same_role_are_refused(server: Server) -> None:
    answer = server.client.post("/v1/jobs", files=FILES, data={"model_id": upload(server, b"m")})
    assert_problem(answer, 422, "invalid-request")


def test_list_pages_through_all_jobs_newest_first(server: Server) -> None:
    ids = [server.submit(trials=0)["id"] for _ in range(3)]
    found: list[object] = []
    cursor: str | None = ""
    while cursor is not None:
        page = server.client.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
    assert found[:3] == ids[::-1]
    assert len(found) == len(set(found)) == len(server.deps.store.list())
    for job_id in ids:
        server.wait(job_id)
    done = server.client.get("/v1/jobs", params={"state": "succeeded", "limit": 100}).json()["jobs"]
    assert {job["state"] for job in done} == {"succeeded"}


@pytest.mark.parametrize("query", ["state=done", "limit=0", "limit=1000", "limit=x", "cursor=x", "cursor=before-x"])
def test_wrong_query_is_refused(server: Server, query: str) -> None:
    assert_problem(server.client.get(f"/v1/jobs?{query}"), 422, "invalid-request")


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/jobs/none", 404, "not-found"),
        ("GET", "/v1/jobs/none/engine", 404, "not-found"),
        ("GET", "/v1/jobs/none/artifacts", 404, "not-found"),
        ("GET", "/v1/jobs/none/artifacts/x", 404, "not-found"),
        ("DELETE", "/v1/jobs/none", 404, "not-found"),
        ("POST", "/v1/jobs/none/cancel", 404, "not-found"),
        ("GET", "/v1/jobs/none/events", 404, "not-found"),
        ("PUT", "/v1/jobs", 405, "method-not-allowed"),
    ],
)
def test_errors_are_problem_objects(server: Server, method: str, path: str, status: int, slug: str) -> None:
    assert_problem(server.client.request(method, path), status, slug)


def test_unknown_artifact_names_the_known_ones(server: Server) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    problem = assert_problem(server.client.get(f"/v1/jobs/{job['id']}/artifacts/none"), 404, "not-found")
    assert "report.json" in str(problem["detail"])


def test_unexpected_error_is_a_problem_object_without_a_trace(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(server.deps.store), "rows", broken)
    problem = assert_problem(server.client.get("/v1/jobs"), 500, "internal")
    assert "secret" not in str(problem)


def test_targets_and_health_are_told(server: Server) -> None:
    targets = server.client.get("/v1/targets").json()["targets"]
    precisions = ["fp32", "int8", "int8_dynamic", "int8_weights", "int4_weights"]
    assert {"target": "onnxruntime-cpu", "precisions": precisions, "latency_source": "measured", "gpus": []} in targets
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready", "problems": {}}


def without_nulls(value: object) -> object:
    """The web framework leaves nulls (a default of null) out of its documentation."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def test_documentation_has_the_schema_of_the_configuration(server: Server) -> None:
    assert server.client.get("/docs").status_code == 200
    paths = server.client.get("/openapi.json").json()["paths"]
    content = paths["/v1/jobs"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["config"] == without_nulls(json_schema())
    assert set(paths) >= {"/v1/files", "/v1/jobs", "/v1/jobs/{job_id}", "/v1/jobs/{job_id}/engine", "/v1/targets", "/healthz", "/readyz"}


def test_foreign_name_is_refused_by_a_server_without_a_key(server: Server) -> None:
    answer: httpx.Response = server.client.get("/v1/jobs", headers={"Host": "example.org"})
    assert_problem(answer, 403, "forbidden")


def test_method_that_a_path_does_not_take_is_answered_with_all_that_it_takes(server: Server) -> None:
    answer = server.client.put("/v1/jobs/7")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD"
