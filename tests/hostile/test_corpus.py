"""Every upload of the corpus against a live server: a clear refusal, no answer that waits, no memory taken, nothing left behind."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.hostile.configs import configs
from tests.hostile.live_server import LiveServer, Watch, live_server
from tests.hostile.onnx_files import endless, onnx_files
from tests.hostile.samples import npy, npz, samples
from tests.hostile.tars import tars
from tests.hostile.upload import Ends, Upload
from tests.hostile.zips import zips
from tests.model_text import cnn, samples_for

CORPUS = [*zips(), *tars(), *configs(), *samples(), *onnx_files(), endless()]
MIB = 2**20
logger = logging.getLogger(__name__)
MAX_RISE_BYTES = 256 * MIB  # of the server's resident memory, over what it takes at rest
MAX_ANSWER_SECONDS = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("hostile")
    with live_server(folder, MAX_UPLOAD_BYTES=str(64 * MIB), STAGE_MEMORY_BYTES=str(2 * 2**30), STAGE_SECONDS="60") as running:
        yield running


def sound_files() -> dict[str, bytes]:
    model = cnn()
    arrays = {name: npy(np.asarray(array)) for name, array in samples_for(model, 32).items()}
    return {"model": model.SerializeToString(), "calibration": npz(**arrays), "config": b"{}"}


def submitted(client: httpx.Client, upload: Upload, ids: dict[str, str]) -> httpx.Response:
    files = {upload.role: ("file", upload.content())}
    others = {f"{role}_id": file_id for role, file_id in ids.items() if role != upload.role}
    return client.post("/v1/jobs", files=files, data=others)


def assert_plain(problem: dict[str, object], data: Path) -> None:
    """What a problem says is short and visible, says what to do, and names no folder of the server."""
    for key in ("detail", "fix"):
        text = str(problem[key])
        assert 0 < len(text) <= 2000
        assert text.isprintable()
        assert str(data) not in text


def finished(server: LiveServer, job_id: str, ends: Ends, seconds: float = 60) -> dict[str, object]:
    """Return the job at its end; of one that may go on, as it is once its first stage is over or has taken long."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        job = dict(server.client.get(f"/v1/jobs/{job_id}").json())
        if job["state"] in {"succeeded", "failed", "cancelled"}:
            return job
        if ends is Ends.HARMLESS and (job["stage"] not in {None, "inspect"} or time.monotonic() - begun > 1.5):
            server.client.post(f"/v1/jobs/{job_id}/cancel")
        time.sleep(0.06)
    raise AssertionError(f"the job goes on: {job}")


def test_corpus_is_of_at_least_a_hundred() -> None:
    assert len({upload.name for upload in CORPUS}) == len(CORPUS) >= 100


@pytest.mark.long
def test_server_stands_all_of_it(server: LiveServer) -> None:
    ids = {role: str(server.client.post("/v1/files", content=data).json()["id"]) for role, data in sound_files().items()}
    del ids["config"]
    watch = Watch(str(server.client.base_url), server.process.pid)
    jobs: dict[str, Upload] = {}
    wrong: list[str] = []
    try:
        for upload in CORPUS:
            answer = submitted(server.client, upload, ids)
            if answer.status_code == 202:
                jobs[str(answer.json()["id"])] = upload
                if upload.ends is Ends.REFUSED:
                    wrong.append(f"{upload.name}: accepted")
            elif 400 <= answer.status_code < 500:
                assert_plain(answer.json(), server.data)
            else:
                wrong.append(f"{upload.name}: {answer.status_code} {answer.text[:300]}")
        for job_id, upload in jobs.items():
            job = finished(server, job_id, upload.ends)
            error = job["error"]
            if isinstance(error, dict):
                assert_plain(error, server.data)
                if error["status"] >= 500 and upload.ends is not Ends.HARMLESS:
                    wrong.append(f"{upload.name}: {json.dumps(error)[:400]}")
            elif upload.ends is not Ends.HARMLESS:
                wrong.append(f"{upload.name}: {job['state']}")
            assert len(json.dumps(job)) < MIB
    finally:
        watch.close()
    rise = watch.worst_resident_bytes - watch.first_resident_bytes
    figures = (
        f"{len(CORPUS)} uploads, {len(jobs)} became jobs; {watch.answers} answers of /healthz, the worst after"
        f" {watch.worst_answer_seconds:.3f} s (this thread woke {watch.worst_lag_seconds:.3f} s late); the server had at most"
        f" {watch.worst_resident_bytes / MIB:.0f} MiB, {rise / MIB:.0f} more than at rest"
    )
    logger.info("%s", figures)  # pytest shows it with --log-cli-level=INFO
    assert wrong == [], figures
    assert rise <= MAX_RISE_BYTES, figures
    assert watch.worst_answer_seconds <= MAX_ANSWER_SECONDS + 10 * watch.worst_lag_seconds, figures  # a machine may be busy itself
    deadline = time.monotonic() + 10
    while server.leftovers() and time.monotonic() < deadline:  # a cancelled job clears up once its stage has ended
        time.sleep(0.05)
    assert [path for path in server.leftovers() if "onnx-trt-optimizer-" not in path] == []


@pytest.mark.long
def test_log_holds_no_line_that_is_not_the_servers(server: LiveServer) -> None:
    text = server.log.read_text()
    assert "INFO forged" not in [line[: len("INFO forged")] for line in text.splitlines()]
    assert max(map(len, text.splitlines())) < 2200
    assert "\x1b" not in text
    assert "Traceback" not in text
