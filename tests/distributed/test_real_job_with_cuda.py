"""A whole job of the real pipeline whose probes run on a cpu worker and on an idle gpu worker, with a stand-in for CUDA."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.execution.provider import Provider
from tests.cuda_machine import search_path
from tests.distributed.fleet import Fleet, running_fleet
from tests.distributed.launch_process import REAL
from tests.model_text import fixed_batch, samples_for
from tests.postgres_server import PostgresServer

CONFIG = {"accuracy": {"min_relative": 0.5}, "analysis": "full", "search": {"max_trials": 3}}


@pytest.mark.long
def test_probes_on_a_gpu_worker_change_nothing_but_who_measured(postgres: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    with running_fleet(tmp_path / "fleet", postgres.create_database(), version=REAL) as fleet:
        fleet.environment["ONNX_TRT_OPTIMIZER_CACHE_BYTES"] = "0"
        fleet.add("one", "cpu")
        fleet.wait_until_up()
        alone, log = report_of(fleet)
        assert alone["probes"]["providers"] == [Provider.CPU]
        assert "parts" not in log
        stand_in = tmp_path / "stand-in"
        stand_in.mkdir()
        fleet.add("gpu", "gpu", FAKE_GPU="L4", FAKE_PROBES=Provider.CUDA.value, PYTHONPATH=search_path(stand_in))
        fleet.wait_until_up()
        shared, log = report_of(fleet)
    assert shared["probes"]["parts"][Provider.CUDA] >= 2
    assert f"on 1 worker of L4 ({Provider.CUDA})" in log
    assert "failed on CUDA" not in log
    assert {name: shared[name] for name in MEASURED} == {name: alone[name] for name in MEASURED}
    assert all(alone[name] for name in MEASURED)


def report_of(fleet: Fleet) -> tuple[Mapping[str, Any], str]:
    """Return the report and the log of a job."""
    model, samples = fixed_batch(), io.BytesIO()
    np.savez(samples, **samples_for(model, 48))  # type: ignore[arg-type]  # numpy's stubs take the names for its own
    form = {"model": model.SerializeToString(), "calibration": samples.getvalue()}
    answer = fleet.client.post("/v1/jobs", files=form, data={"config": json.dumps(CONFIG)})
    assert answer.status_code == 202, answer.text
    done = fleet.wait(str(answer.json()["id"]), seconds=240)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    files = f"/v1/jobs/{done['id']}/artifacts"
    return fleet.client.get(f"{files}/report.json").json(), fleet.client.get(f"{files}/log.txt").text


MEASURED = ("traces", "dependencies", "dependency_map", "orders")
