"""A model as one thing where it is several files: the .onnx file and the external data beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.workspace import FileRef, Workspace


def keep_model(source: Path, name: str, workspace: Workspace) -> FileRef:
    """Copy a model into the workspace under ``name``, its external data beside it, and return the reference of the .onnx file."""
    folder = PurePosixPath(name).parent
    for external in external_files(source):
        workspace.copy(source.parent / external, (folder / external).as_posix())
    return workspace.copy(source, name)


def move_model(source: Path, name: str, workspace: Workspace) -> FileRef:
    """Move a model into the workspace under ``name``, its external data beside it, and return the reference of the .onnx file.

    Args:
        source: The model, which nothing else may name and which is gone afterwards; on the file system of the workspace.
        name: Its name there; external data keep theirs.
        workspace: Where it goes.
    """
    folder = PurePosixPath(name).parent
    for external in external_files(source):
        target = workspace.path((folder / external).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        (source.parent / external).replace(target)
    ref = workspace.link(source, name)
    source.unlink()
    return ref


def model_size_bytes(path: Path) -> int:
    """Return the size of an .onnx file and its external data."""
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in external_files(path))))
