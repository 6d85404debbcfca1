"""What a finished job leaves in the artifact store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calibration.codec import as_object
from engine_builder.stage_io.outcome import JobOutcome
from service.jobs.archives import pack_model
from service.jobs.artifacts import ArtifactStore
from service.jobs.records import StoredFile
from service.worker.child_process import LOG_NAME


def collect(outcome: JobOutcome, workspace: Path, store: ArtifactStore) -> tuple[Mapping[str, object], str, dict[str, StoredFile]]:
    """Put what the pipeline made into the store and return the job's result, the name of its engine, and every artifact by name.

    A model with external data is stored as a .zip of all its files, since a download is one file; the result then names that.

    Args:
        outcome: Of the job.
        workspace: The job's folder, in which its files lie.
        store: Takes the files.
    """
    result, name = outcome.result, outcome.engine_name
    artifacts: dict[str, StoredFile] = {}
    for key, file in {**outcome.artifacts, name: outcome.engine}.items():
        path, packed = workspace / file.file, workspace / f"{key}.zip"
        if path.suffix == ".onnx" and pack_model(path, packed):
            artifacts[_zipped(key)] = store.put(packed)
        else:
            artifacts[key] = store.put(path)
    if name not in artifacts:
        name = _zipped(name)
        stored, facts = artifacts[name], as_object(result["engine"])
        result = {**result, "engine": {**facts, "name": name, "sha256": stored.sha256, "size_bytes": stored.size_bytes}}
    return result, name, artifacts | log_of(workspace, store)


def log_of(workspace: Path, store: ArtifactStore) -> dict[str, StoredFile]:
    """Return the job's log as an artifact, where there is one."""
    log = workspace / LOG_NAME
    return {LOG_NAME: store.put(log)} if log.is_file() else {}


def _zipped(name: str) -> str:
    return Path(name).with_suffix(".zip").name
