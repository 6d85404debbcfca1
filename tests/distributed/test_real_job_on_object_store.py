"""A whole job of the real pipeline whose worker is killed half-way: another one, which shares no folder with it, ends it."""

from __future__ import annotations

import io
import json
import signal
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.distributed.fleet import running_fleet
from tests.distributed.kinds import owner
from tests.distributed.launch_process import REAL
from tests.faults.server_process import FINISHED, wait_until
from tests.model_text import cnn, samples_for
from tests.object_store_server import ObjectStoreServer
from tests.postgres_server import PostgresServer


@pytest.mark.long
def test_another_worker_ends_a_real_job(postgres: PostgresServer, object_store: ObjectStoreServer, tmp_path: Path) -> None:
    model = cnn()
    samples = io.BytesIO()
    np.savez(samples, **samples_for(model, 48))  # type: ignore[arg-type]  # numpy's stubs take the names for its own
    config = {"accuracy": {"min_relative": 0.5}, "search": {"max_trials": 4}}
    with running_fleet(tmp_path, postgres.create_database(), "one", "two", objects=object_store, version=REAL) as fleet:
        form = {"model": zipped_with_weights_beside(model, tmp_path / "model"), "calibration": samples.getvalue()}
        answer = fleet.client.post("/v1/jobs", files=form, data={"config": json.dumps(config)})
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["id"])
        wait_until(lambda: bool(fleet.job(job_id).get("trials")) or fleet.job(job_id).get("state") in FINISHED, 120, fleet.logs)
        before = fleet.job(job_id)
        assert before["state"] == "running", before
        dead = owner(fleet, job_id)
        dead.end(signal.SIGKILL)
        done = fleet.wait(job_id, seconds=180)
        assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
        assert all(trial["failure"] is None for trial in done["trials"])  # type: ignore[attr-defined]
        workflow = fleet.query(f"SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = '{job_id}'")
        assert workflow != [(dead.name,)]
        engine = fleet.client.get(f"/v1/jobs/{job_id}/engine").content
        result = done["result"]
        assert isinstance(result, dict)
        assert len(engine) == result["engine"]["size_bytes"]
        for listed in fleet.client.get(f"/v1/jobs/{job_id}/artifacts").json()["artifacts"]:
            assert len(fleet.client.get(listed["link"]).content) == listed["size_bytes"]
    assert runs(engine, tmp_path / "engine", samples_for(model, 3))


def zipped_with_weights_beside(model: onnx.ModelProto, folder: Path) -> bytes:
    folder.mkdir()
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name in ("model.onnx", "weights.bin"):
            zipped.write(folder / name, name)
    return archive.getvalue()


def runs(engine: bytes, folder: Path, feeds: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> bool:
    folder.mkdir()
    if zipfile.is_zipfile(io.BytesIO(engine)):  # the user's own file, with its weights beside it
        zipfile.ZipFile(io.BytesIO(engine)).extractall(folder)
    else:
        (folder / "model.onnx").write_bytes(engine)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return all(np.isfinite(output).all() for output in session.run(None, feeds))
