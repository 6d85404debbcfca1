"""What a report that is made now says of itself."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime
from pathlib import PurePosixPath

from engine_builder.reporting.body.report_body import Made
from engine_builder.workspace.workspace import FileRef

_DISTRIBUTION = "onnx-trt-optimizer"


def made_now(model: FileRef) -> Made:
    """Return what a report about a model says of itself.

    Args:
        model: As the user gave it.
    """
    return Made(PurePosixPath(model.file).name, model.sha256, datetime.now(UTC).isoformat(timespec="seconds"), _version())


def _version() -> str | None:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        return None
