"""The lines of a job's log that say when what happened; between them stands what its stages printed."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from calibration.plain_text import plain_text
from service.worker.stage_log import LOG_NAME, StageLog

logger = logging.getLogger(__name__)


class JobLog:
    """Appends to the log in a job's folder. Used by one thread."""

    def __init__(self, workspace: Path, clock: Callable[[], datetime]) -> None:
        """Write to ``log.txt`` in ``workspace``; ``clock`` gives the present, in UTC."""
        self._path = workspace / LOG_NAME
        self._clock = clock

    def line(self, text: str) -> str:
        """Append a line with the time before it, and return the text as it was written."""
        text = plain_text(text)
        try:
            with StageLog(self._path) as log:
                log.write(f"{self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n".encode())
        except OSError as exc:  # no reason to end a job
            logger.warning("a line of a job's log was not written: %s", exc)
        return text


def versions(pipeline: str) -> str:
    """Return what makes up this program, in one line.

    Args:
        pipeline: Version of the sequence of stages.
    """
    parts = [f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "onnx", "numpy")]
    return ", ".join([f"pipeline {pipeline}", f"Python {platform.python_version()}", *parts, platform.platform()])
