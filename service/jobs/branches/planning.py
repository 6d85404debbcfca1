"""The branches of a job: one for each type of GPU that it names, with the same files and settings."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from engine_builder.config.config import Config, config_json
from engine_builder.workspace.workspace import FileRef
from service.jobs.records import NewJob


def branch_of(parent: NewJob, config: Config, inputs: Mapping[str, FileRef], job_id: str | None = None) -> NewJob:
    """Return a branch of a job.

    Args:
        parent: The job.
        config: Of the branch, see ``branch_configs``.
        inputs: Its files, in the branch's own workspace.
        job_id: The branch's id; a new one by default.
    """
    return NewJob(
        id=job_id or str(uuid.uuid4()),
        target=parent.target,
        config=config_json(config),
        inputs=inputs,
        request_sha256=parent.request_sha256,
        tenant=parent.tenant,
        priority=parent.priority,
        parent=parent.id,
    )


def folder_of(gpu: str) -> str:
    """Return the folder of a type of GPU among the files of a job: ``RTX-4090`` of "RTX 4090"."""
    return _OTHERS.sub("-", gpu).strip("-.") or "gpu"


_OTHERS = re.compile(r"[^A-Za-z0-9._]+")
