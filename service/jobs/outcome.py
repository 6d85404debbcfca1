"""What a finished job leaves in the artifact store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from calibration.codec import as_object
from calibration.plain_text import folders_to_hide, plain_text
from engine_builder.stage_io.outcome import JobOutcome
from service.intake.packing import pack_model
from service.jobs.artifacts import ArtifactStore
from service.jobs.records import StoredFile
from service.worker.stage_log import LOG_NAME


def collect(outcome: JobOutcome, workspace: Path, store: ArtifactStore) -> tuple[Mapping[str, object], str, dict[str, StoredFile]]:
    """Put what the pipeline made into the store and return the job's result, the name of its engine, and every artifact by name.

    A model with external data is stored as a .zip of all its files, since a download is one file; the result then names that, also where
    it is the engine of an offer.

    Args:
        outcome: Of the job.
        workspace: The job's folder, in which its files lie.
        store: Takes the files.
    """
    result, name = outcome.result, outcome.engine_name
    artifacts: dict[str, StoredFile] = {}
    packed_as: dict[str, str] = {}
    for key, file in {**outcome.artifacts, name: outcome.engine}.items():
        path, packed = workspace / file.file, workspace / f"{key}.zip"
        if path.suffix == ".onnx" and pack_model(path, packed):
            packed_as[key] = _zipped(key)
            artifacts[_zipped(key)] = store.put(packed)
        else:
            artifacts[key] = store.put(path)
    if name not in artifacts:
        name = _zipped(name)
        stored, facts = artifacts[name], as_object(result["engine"])
        result = {**result, "engine": {**facts, "name": name, "sha256": stored.sha256, "size_bytes": stored.size_bytes}}
    return _with_offered_files(result, packed_as, artifacts), name, artifacts | log_of(workspace, store)


def offered_engines(result: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """Return the offered engines in a job's result, in the form of ``ReportedOffer``."""
    offers = result.get("offers")
    engines = offers.get("engines") if isinstance(offers, Mapping) else None
    return tuple(engine for engine in engines if isinstance(engine, Mapping)) if isinstance(engines, list | tuple) else ()


def _with_offered_files(
    result: Mapping[str, object], packed_as: Mapping[str, str], artifacts: Mapping[str, StoredFile]
) -> Mapping[str, object]:
    """Return the result with the names under which the files of offered engines are stored."""
    if not packed_as or not offered_engines(result):
        return result
    engines = []
    for engine in offered_engines(result):
        file = engine.get("file")
        name = packed_as.get(str(file["name"])) if isinstance(file, Mapping) else None
        engines.append(engine if name is None else {**engine, "file": {"name": name, "sha256": artifacts[name].sha256}})
    return {**result, "offers": {**as_object(result["offers"]), "engines": engines}}


def log_of(workspace: Path, store: ArtifactStore) -> dict[str, StoredFile]:
    """Return the job's log as an artifact, where there is one: each of its lines plain text, without folders of the server."""
    log = workspace / LOG_NAME
    if not log.is_file():
        return {}
    with log.open("rb") as source, store.writer() as writer:
        for line in plain_lines(source, workspace):
            writer.write(line)
        return {LOG_NAME: writer.commit()}


def plain_lines(log: BinaryIO, workspace: Path) -> Iterator[bytes]:
    """Give the lines of a job's log as anybody may see them: plain text, without folders of the server."""
    hidden = folders_to_hide(workspace)
    while line := log.readline(_LINE_BYTES):
        text = line.decode("utf-8", "replace")
        yield plain_text(text.rstrip("\n").replace("\t", "    "), hidden=hidden).encode() + b"\n"


def _zipped(name: str) -> str:
    return PurePosixPath(name).with_suffix(".zip").as_posix()


_LINE_BYTES = 2**20  # what is longer counts as several lines
