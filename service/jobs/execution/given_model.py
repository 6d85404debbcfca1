"""Lays out a model that was sent, as stages read it, and tells what is known of it before there is a job."""

from __future__ import annotations

import uuid
from pathlib import Path

from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import FileRef
from service.intake.unpacking import is_archive
from service.jobs.records import StoredFile
from service.jobs.resources import Deps

_ROLE = "model"


def laid_model(stored: StoredFile, folder: Path, workspace: Path, deps: Deps) -> FileRef:
    """Put a model into a folder of a workspace, unpacked where it is an archive.

    Args:
        stored: The upload.
        folder: In the workspace; ``model.onnx`` or a folder ``unpacked`` is made in it.
        workspace: Of a job.
        deps: The server's belongings.

    Raises:
        InputError: The archive is broken, unsafe or too large, or holds no model or several.
        InsufficientStorageError: The disk has no room.
    """
    path = folder / _ROLE
    deps.artifacts.fetch(stored.sha256, path)
    if is_archive(path):
        found = deps.intake.unpack(path, folder / "unpacked", workspace)
        path.unlink()
        return found
    named = path.rename(path.with_suffix(".onnx"))
    return FileRef(str(named.relative_to(workspace)), stored.sha256)


def preflight_of(stored: StoredFile, samples: int, deps: Deps) -> dict[str, object]:
    """Return what is known of a model without a job; see ``service.intake.stages.preflight``.

    Args:
        stored: The upload.
        samples: That engines would be scored on, for the estimate.
        deps: The server's belongings.

    Raises:
        InputError: It is no model that can be optimized, or reading it takes more than this server gives.
    """
    workspace = deps.workspace(f"preflight-{uuid.uuid4()}")  # no job: removed at the next start, should this process end now
    try:
        (workspace / "inputs").mkdir(parents=True)
        laid = laid_model(stored, workspace / "inputs", workspace, deps)
        return deps.intake.preflight(laid, samples, workspace)
    finally:
        remove_tree(workspace)
