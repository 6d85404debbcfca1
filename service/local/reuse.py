"""What a run on the command line finds of earlier ones: the user's cache, and the record of the same job, if it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from calibration.codec import json_from_value
from calibration.errors import InputError
from engine_builder.config.config import config_json
from engine_builder.pipeline.optimize import PIPELINE_VERSION, JobRequest
from engine_builder.pipeline.stage_table import KEPT_STAGES
from engine_builder.workspace.workspace import Workspace
from service.local.progress import ProgressView
from service.worker.job_record import JobRecord
from service.worker.result_identity import machine_identity, result_identity
from service.worker.stage_cache import StageCache

FOLDER = "onnx-trt-optimizer"


def default_cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the folder for what is kept of this user's runs; None where there is no home to keep it in."""
    for root in (environment.get("XDG_CACHE_HOME", ""), environment.get("HOME", "") and f"{environment['HOME']}/.cache"):
        if Path(root).is_absolute():
            return Path(root) / FOLDER
    return None


@contextmanager
def job_record(
    folder: Path | None, max_bytes: int, request: JobRequest, workspace: Workspace, view: ProgressView
) -> Iterator[JobRecord | None]:
    """Give the record of a job, which is forgotten when the block ends well, and tell the user if it goes on where it was.

    Args:
        folder: Of the cache; without one there is no record.
        max_bytes: The room that the cache has.
        request: The job.
        workspace: Where its files are.
        view: Told what the user should know.
    """
    if folder is None:
        yield None
        return
    try:
        cache = StageCache(folder, result_identity(PIPELINE_VERSION), KEPT_STAGES, max_bytes=max_bytes)
    except OSError as exc:
        view.line(f"note: nothing is kept for further runs, since {folder} cannot be used: {exc.strerror}")
        yield None
        return
    identity = {"files": json_from_value(request.files), "config": config_json(request.config)}
    with JobRecord(cache, cache.key("job", identity, workspace, job=machine_identity())) as record:
        if record.done:
            view.line(f"continuing a run of this job that was interrupted: {record.done} stages were done before")
        try:
            yield record
        except InputError:
            record.forget()
            raise
        record.forget()
