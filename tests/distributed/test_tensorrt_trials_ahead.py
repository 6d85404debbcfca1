"""A whole job for tensorrt on one, two and three gpu workers, with a stand-in for TensorRT: the same trials, choice and files."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.jobs.execution.placement import gpu_type
from tests.distributed.fleet import Fleet
from tests.distributed.launch_process import REAL
from tests.faults.server_process import wait_until
from tests.model_text import samples_for
from tests.object_store_server import ObjectStoreServer
from tests.postgres_server import PostgresServer
from tests.tensorrt_stand_in.counted_job import chain
from tests.tensorrt_stand_in.install import install
from tests.tensorrt_stand_in.orders import Orders, noted_builds

pytestmark = pytest.mark.long  # each starts a database and several processes

Json = dict[str, Any]  # of answers

GPU = "NVIDIA Stub 1"
CONFIG: Mapping[str, Any] = {
    "target": "tensorrt",
    "gpu": GPU,
    "precisions": ["int8", "fp8"],
    "accuracy": {"metric": "nmse", "max_nmse": 2e-4},
    "search": {"max_trials": 6},
}
BUILD_SECONDS = 3.0


@contextmanager
def fleet_of(
    place: Path, postgres: PostgresServer, gpus: int, build_seconds: float, objects: ObjectStoreServer | None = None
) -> Iterator[Fleet]:
    """Give an api, a cpu worker, and so many gpu workers that find the stand-in, each with a GPU to itself."""
    place.mkdir()
    stand_in = install(place, Orders(build_seconds=build_seconds))
    fleet = Fleet(place / f"fleet-{secrets.token_hex(4)}", postgres.create_database(), objects, version=REAL)
    fleet.folder.mkdir()
    own = {name: text for name, text in fleet.environment.items() if name.startswith(("ONNX_TRT_OPTIMIZER_", "AWS_"))}
    fleet.environment = {**stand_in, **own}
    try:
        fleet.add("api", "api")
        fleet.add("one", "cpu")
        for index in range(gpus):
            locks = place / f"locks-{index}"
            fleet.add(f"gpu-{index}", "gpu", FAKE_GPU=gpu_type(GPU), ONNX_TRT_OPTIMIZER_GPU_LOCKS=str(locks))
        fleet.wait_until_up()
        yield fleet
    finally:
        fleet.close()


@dataclass(frozen=True)
class Done:
    """What a job left."""

    seconds: float
    trials: list[Json]
    result: Json
    files: dict[str, bytes]
    builds: int

    @property
    def taken(self) -> int:
        return self.files["log.txt"].decode().count("built and scored ahead")


def job_on(
    place: Path,
    postgres: PostgresServer,
    gpus: int,
    *,
    config: Mapping[str, Any] = CONFIG,
    build_seconds: float = BUILD_SECONDS,
    objects: ObjectStoreServer | None = None,
) -> Done:
    """Run the job where so many workers have a GPU, and see that nothing of what was built ahead is left."""
    with fleet_of(place, postgres, gpus, build_seconds, objects) as fleet:
        model, samples = chain(), io.BytesIO()
        np.savez(samples, **samples_for(model, 64))  # type: ignore[arg-type]  # numpy's stubs take the names for its own
        form = {"model": model.SerializeToString(), "calibration": samples.getvalue()}
        begun = time.monotonic()
        answer = fleet.client.post("/v1/jobs", files=form, data={"config": json.dumps(config)})
        assert answer.status_code == 202, answer.text
        done = fleet.wait(str(answer.json()["id"]), seconds=480)
        seconds = time.monotonic() - begun
        assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
        listed = fleet.client.get(f"/v1/jobs/{done['id']}/artifacts").json()["artifacts"]
        files = {one["name"]: fleet.client.get(one["link"]).content for one in listed}
        wait_until(lambda: fleet.left_files() == [], 20, fleet.logs)
        assert fleet.query("SELECT count(*) FROM dbos.workflow_status WHERE name = 'prepare_stage'") == [(0,)]
        return Done(seconds, list(done["trials"]), dict(done["result"]), files, len(noted_builds(place)))  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def serial(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """What the job gives where no GPU is idle."""
    return job_on(tmp_path_factory.mktemp("serial") / "one", postgres, 1)


@pytest.mark.parametrize("gpus", [2, 3])
def test_with_idle_gpus_a_job_makes_the_same_trials_the_same_choice_and_the_same_files(
    gpus: int, serial: Done, postgres: PostgresServer, tmp_path: Path
) -> None:
    assert_same(job_on(tmp_path / "several", postgres, gpus), serial)


def test_without_a_shared_folder_they_are_the_same_too(postgres: PostgresServer, object_store: ObjectStoreServer, tmp_path: Path) -> None:
    serial, done = (job_on(tmp_path / f"{gpus} apart", postgres, gpus, objects=object_store) for gpus in (1, 2))
    assert_same(done, serial)  # neither has a timing.cache, which no stage names


def assert_same(done: Done, serial: Done) -> None:
    """See that a job that took engines that were built ahead gave what the serial one gave."""
    assert serial.taken == 0
    assert done.taken >= LEAST_TAKEN
    assert len(serial.trials) == CONFIG["search"]["max_trials"]
    assert but_for_times(done.trials) == but_for_times(serial.trials)
    assert but_for_times(done.result) == but_for_times(serial.result)
    assert but_for_times(json.loads(done.files["report.json"])) == but_for_times(json.loads(serial.files["report.json"]))
    assert done.files.keys() == serial.files.keys()
    same = {name for name in serial.files if name not in OF_TIMES}
    assert len(same) > len(OF_TIMES)
    assert {name for name in same if done.files[name] != serial.files[name]} == set()


def but_for_times(value: object) -> object:
    """Return a JSON value without what is told by the clock; latencies are the stand-in's, and the same in every run."""
    if isinstance(value, dict):
        return {name: but_for_times(item) for name, item in value.items() if name not in TOLD_BY_THE_CLOCK}
    return [but_for_times(item) for item in value] if isinstance(value, list) else value


LEAST_TAKEN = 2  # the second one-format engine, and some of the bisection
TOLD_BY_THE_CLOCK = {"seconds", "at"}
OF_TIMES = {"log.txt", "report.html", "report.json", "timing.cache"}  # the last: two builds at once do not read each other's kernel times
