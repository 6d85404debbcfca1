"""A note of each unfinished job in its own folder, from which its row can be written anew should the database be lost."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from calibration.codec import as_object, json_from_value, value_from_json
from calibration.errors import InvalidConfigError
from engine_builder.workspace.workspace import FileRef, file_sha256
from service.access.caller import DEFAULT_TENANT, check_tenant
from service.jobs.records import Job, NewJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobNote:
    """What was known of a job when it was submitted, and when that was."""

    new: NewJob
    created_at: datetime


def write_note(workspace: Path, job: Job) -> None:
    """Write the note of a job that has a row. A disk that does not take it costs a warning."""
    unfinished = workspace / f"{NOTE_NAME}.part"
    content = {"new": json_from_value(job.new), "created_at": job.created_at.timestamp()}
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(workspace / NOTE_NAME)
    except OSError as exc:
        logger.warning("job %s: no note of it is kept beside the database: %s", job.id, exc.strerror)


def find_note(workspace: Path) -> JobNote | None:
    """Return the note in a folder; None where there is none that can be read, or where it is of another folder's job."""
    try:
        content = as_object(json.loads((workspace / NOTE_NAME).read_text(encoding="utf-8")))
        new = as_object(content["new"])
        key = new["idempotency_key"]
        found = NewJob(
            id=str(new["id"]),
            target=str(new["target"]),
            config=as_object(new["config"]),
            inputs=value_from_json(dict[str, FileRef], new["inputs"]),
            idempotency_key=None if key is None else str(key),
            request_sha256=str(new["request_sha256"]),
            priority=int(str(new.get("priority", 0))),
            tenant=check_tenant(str(new.get("tenant", DEFAULT_TENANT))),  # a note of an earlier version has none
            parent=None if new.get("parent") is None else str(new["parent"]),
            branches=int(str(new.get("branches", 0))),
        )
        note = JobNote(found, datetime.fromtimestamp(float(str(content["created_at"])), UTC))
    except (OSError, ValueError, KeyError, TypeError, InvalidConfigError):
        return None
    return note if found.id == workspace.name else None


def damaged_inputs(note: JobNote, workspace: Path) -> tuple[str, ...]:
    """Return the names of the inputs that are not there, or not what was sent."""
    found = []
    for role, ref in note.new.inputs.items():
        path = workspace / ref.file
        if not path.is_file() or file_sha256(path) != ref.sha256:
            found.append(role)
    return tuple(found)


NOTE_NAME = "job.json"
