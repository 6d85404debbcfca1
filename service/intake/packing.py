"""Packs a model and its external data into one file, since an upload and a download are one."""

from __future__ import annotations

import zipfile
from pathlib import Path

from engine_builder.workspace.external_files import external_files


def pack_model(model: Path, target: Path) -> bool:
    """Write a model and its external data as a .zip, and return True; a model without external data is left alone, and False returned."""
    beside = external_files(model)
    if not beside:
        return False
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.write(model, model.name if model.suffix == ".onnx" else "model.onnx")
        for name in beside:
            archive.write(model.parent / name, name)
    return True
