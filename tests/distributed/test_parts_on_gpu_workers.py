"""Parts of a stage on idle gpu workers, real processes that pretend to have CUDA: measured there, given up for trials, measured again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import psutil
import pytest

from calibration.execution.provider import Provider
from tests.distributed.fleet import Fleet
from tests.fakes import executions
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.long  # each starts a database and several processes

FOR_L4 = json.dumps({"target": "tensorrt-rtx", "gpu": "NVIDIA L4"})
ON_CUDA = f"with {Provider.CUDA}"
ON_CPU = f"with {Provider.CPU}"
PROBES = 12


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("parts"), postgres.create_database())
    try:
        fleet.add("api", "api")
        for name in ("one", "two"):
            fleet.add(name, "cpu")
        fleet.add("gpu", "gpu", FAKE_GPU="L4", FAKE_PROBES=Provider.CUDA.value)
        fleet.add("without", "gpu", FAKE_GPU="RTX 4090")  # where CUDA does not work for probes
        fleet.wait_until_up()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(fleet: Fleet) -> Iterator[None]:
    """See that whatever a test does, no file and no process of a part is left once all jobs have ended."""
    yield
    wait_until(lambda: fleet.left_files() == [], 20, fleet.logs)
    wait_until(lambda: living(fleet, ON_CUDA) == [], 20)


def squares() -> str:
    return str([number**2 for number in range(PROBES)])


def probed(fleet: Fleet, job_id: str) -> str:
    """Return what the engine recorded of the job's step ``probe``."""
    rows = fleet.query(f"SELECT output FROM dbos.operation_outputs WHERE workflow_uuid = '{job_id}' AND function_name = 'probe'")
    return str(rows[0][0])


def living(fleet: Fleet, event: str, after: int = 0) -> list[int]:
    """Return the living processes of stages that noted an event."""
    pids = [int(line.split()[-1]) for line in executions(fleet.record)[after:] if line.startswith(event)]
    return [pid for pid in pids if psutil.pid_exists(pid)]


def log(fleet: Fleet, job_id: str) -> str:
    return fleet.client.get(f"/v1/jobs/{job_id}/log").text


def test_an_idle_gpu_worker_measures_parts_with_cuda_and_the_log_says_how_many(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=0.7)
    owners: dict[str, str] = {}

    def is_shared() -> bool:
        for event in (ON_CUDA, ON_CPU):
            for pid in living(fleet, event, before):
                owners[fleet.owner(pid).name] = event
        return len(owners) == 3

    wait_until(is_shared, 40, lambda: f"{owners}\n{fleet.logs()}")
    assert owners == {"one": ON_CPU, "two": ON_CPU, "gpu": ON_CUDA}
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert squares() in probed(fleet, job_id)
    counts = fleet.counts(before)
    assert counts[ON_CUDA] + counts[ON_CPU] == 2 * 3  # two parts for each worker that helps, whatever it is
    on_cuda = counts[ON_CUDA]
    assert f'"{Provider.CUDA}": {on_cuda}' in probed(fleet, job_id)
    said = log(fleet, job_id)
    assert f"probe: 6 parts: {6 - on_cuda} on 2 cpu workers ({Provider.CPU}), {on_cuda} on 1 worker of L4 ({Provider.CUDA})" in said
    assert "gpu" not in said.split("6 parts", 1)[1].splitlines()[0]  # nobody is named
    assert fleet.query(f"SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE '{job_id}:%%'") == [(0,)]


def test_a_part_that_fails_on_cuda_is_measured_again_on_the_cpu_and_cuda_is_left_alone(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=0.5, fail_on=Provider.CUDA.value)
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert squares() in probed(fleet, job_id)
    counts = fleet.counts(before)
    assert counts[ON_CUDA] == 1
    assert counts[ON_CPU] == 6
    said = log(fleet, job_id)
    assert "warning: probe: a part failed on CUDA, and was measured again on the CPU: an operator has no kernel" in said
    assert f"on 1 worker of L4 ({Provider.CPU})" in said
    another = fleet.lines()
    assert fleet.wait(fleet.submit(trials=0, probes=PROBES, seconds=0.5))["state"] == "succeeded"
    assert fleet.counts(another)[ON_CUDA] > 0  # another job may have it again


def test_a_trial_goes_before_a_part_and_no_part_runs_beside_it(fleet: Fleet) -> None:
    before = fleet.lines()
    wanted = fleet.submit(FOR_L4, trials=1, seconds=4.0, inspect_seconds=8.0)  # keeps the other cpu worker from taking parts, too
    fleet.wait_for_line("begin inspect", after=before)
    probing = fleet.submit(trials=0, probes=6, seconds=6.0)
    wait_until(lambda: len(living(fleet, ON_CUDA, before)) == 1, 40, fleet.logs)
    (part,) = living(fleet, ON_CUDA, before)
    assert fleet.owner(part).name == "gpu"
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 1, 40, fleet.logs)
    assert not psutil.pid_exists(part)
    lines = executions(fleet.record)[before:]
    assert not any(line.startswith("end part/") and line.endswith(f" {part}") for line in lines), lines  # it was given up
    assert fleet.wait(wanted)["state"] == "succeeded"
    lines = [line.rsplit(" ", 1)[0] for line in executions(fleet.record)[before:]]
    beside = lines[lines.index("begin trial/0") : lines.index("end trial/0")]
    assert not any(line.startswith(ON_CUDA) for line in beside), lines
    done = fleet.wait(probing, seconds=120)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert str([number**2 for number in range(6)]) in probed(fleet, probing)


def test_a_gpu_worker_that_is_killed_in_a_part_costs_that_part_alone(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=1.0)
    wait_until(lambda: len(living(fleet, ON_CUDA, before)) == 1, 40, fleet.logs)
    fleet.processes["gpu"].end(signal.SIGKILL)
    done = fleet.wait(job_id)
    fleet.processes["gpu"].launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert squares() in probed(fleet, job_id)
    counts = fleet.counts(before)
    assert all(count == 1 for name, count in counts.items() if name.startswith("end part/")), counts


def test_cancel_reaches_the_part_on_the_gpu_worker(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=30.0)
    wait_until(lambda: len(living(fleet, ON_CUDA, before)) == 1, 40, fleet.logs)
    assert fleet.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: living(fleet, ON_CUDA, before) == [], 20, fleet.logs)
    assert fleet.wait(fleet.submit(FOR_L4, trials=1))["state"] == "succeeded"  # the worker is free
