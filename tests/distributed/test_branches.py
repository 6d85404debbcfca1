"""A job for two types of GPU, on real processes: two cpu workers, and a worker that pretends to have each type."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.distributed.fleet import Fleet
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.long  # each starts a database and several processes

CONFIG = json.dumps({"target": "tensorrt-rtx", "gpus": ["NVIDIA L4", "NVIDIA GeForce RTX 4090"]})
TYPES = ["L4", "RTX 4090"]


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("branches"), postgres.create_database())
    fleet.environment |= {"FAKE_KEPT": "inspect", "ONNX_TRT_OPTIMIZER_CACHE_BYTES": "0"}  # what is shared is not in a cache of a worker
    try:
        fleet.add("api", "api")
        for name in ("one", "two"):
            fleet.add(name, "cpu")
        for index, gpu in enumerate(TYPES):
            fleet.add(f"gpu-{index}", "gpu", FAKE_GPU=gpu)
        fleet.wait_until_up()
        yield fleet
    finally:
        fleet.close()


def branches_of(job: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    found = job["branches"]
    assert isinstance(found, list)
    return found


def test_each_type_gets_an_engine_at_the_same_time_and_the_analysis_runs_once(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=1, seconds=3.0, inspect_seconds=1.0)
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    assert fleet.counts(before)["end trial/0"] == 0  # both are at it
    running = fleet.job(job_id)
    assert running["state"] == "running"
    done = fleet.wait(job_id)

    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert fleet.counts(before)["begin inspect"] == 1
    assert [branch["gpu"] for branch in branches_of(done)] == TYPES
    engines = done["result"]["engines"]  # type: ignore[index]
    assert {gpu: (one["state"], one["engine"]["name"]) for gpu, one in engines.items()} == {
        "L4": ("succeeded", "L4/engine.onnx"),
        "RTX 4090": ("succeeded", "RTX-4090/engine.onnx"),
    }
    queues = fleet.query("SELECT DISTINCT queue_name, executor_id FROM dbos.workflow_status WHERE name = 'gpu_stage'")
    assert set(queues) == {("gpu.L4", "gpu-0"), ("gpu.RTX 4090", "gpu-1")}
    for folder in ("L4", "RTX-4090"):
        assert fleet.client.get(f"/v1/jobs/{job_id}/artifacts/{folder}/engine.onnx").content.startswith(b"engine of ")
    refused = fleet.client.get(f"/v1/jobs/{job_id}/engine")
    assert refused.status_code == 404
    assert "L4/engine.onnx, RTX-4090/engine.onnx" in refused.json()["fix"]
    events = fleet.client.get(f"/v1/jobs/{job_id}/events").text
    assert events.count("event: end") == 1
    assert '"state":"running"' in events.replace(" ", "")
    listed = [row["id"] for row in fleet.client.get("/v1/jobs").json()["jobs"]]
    assert job_id in listed
    assert not {branch["id"] for branch in branches_of(done)} & set(listed)
    wait_until(lambda: fleet.left_files() == [], 10)


def test_a_branch_goes_on_elsewhere_when_its_worker_is_killed(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=2, seconds=1.5, inspect_seconds=2.0)
    dead = fleet.owner(fleet.wait_for_line("begin inspect", after=before))
    dead.end(signal.SIGKILL)
    done = fleet.wait(job_id)
    dead.launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert counts["begin inspect"] == 2  # the one in flight ran again, once for both
    assert counts["end inspect"] == 1
    assert counts["end trial/0"] == counts["end trial/1"] == 2
    wait_until(lambda: fleet.left_files() == [], 10)


def test_a_branch_that_is_cancelled_leaves_the_other(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=1, seconds=2.0)
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    first = branches_of(fleet.job(job_id))[0]
    assert fleet.client.post(f"/v1/jobs/{first['id']}/cancel").json()["state"] == "cancelled"
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    engines = done["result"]["engines"]  # type: ignore[index]
    assert [(one["state"], one["engine"] is None) for one in engines.values()] == [("cancelled", True), ("succeeded", False)]


def test_cancel_ends_all_branches_and_delete_removes_them(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=1, seconds=60)
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    ids = [str(branch["id"]) for branch in branches_of(fleet.job(job_id))]
    refused = fleet.client.delete(f"/v1/jobs/{ids[0]}")
    assert refused.status_code == 409
    assert job_id in refused.json()["detail"]
    assert fleet.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: fleet.left_files() == [], 20, fleet.logs)
    assert fleet.counts(before)["end trial/0"] == 0
    assert [fleet.job(one)["state"] for one in ids] == ["cancelled", "cancelled"]
    assert fleet.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert {fleet.client.get(f"/v1/jobs/{one}").status_code for one in (job_id, *ids)} == {410}
    for one in (job_id, *ids):
        assert fleet.query(f"SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = '{one}'") == [(0,)]


def test_types_that_nobody_has_are_answered_as_one_type_is(fleet: Fleet) -> None:
    def answer(config: Mapping[str, object]) -> tuple[int, str]:
        form = {"model": b"{}", "calibration": b"numbers"}
        found = fleet.client.post("/v1/jobs", files=form, data={"config": json.dumps({"target": "tensorrt-rtx", **config})})
        return found.status_code, str(found.json()["detail"])

    assert answer({"gpus": ["L4", "NVIDIA L4"]}) == (422, "gpus: found 'L4', 'NVIDIA L4', where two name the type 'L4'")
    assert answer({"gpus": ["L4"], "gpu": "L4"})[0] == 422
    status, detail = answer({"gpus": ["L4", "Voodoo 2"]})
    assert (status, "gpu: 'Voodoo 2' is unknown" in detail) == (422, True)
