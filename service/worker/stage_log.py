"""The job's log: what its stages print, and lines that say when what happened."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from calibration.plain_text import plain_text

logger = logging.getLogger(__name__)

LOG_NAME = "log.txt"
LOG_LIMIT_BYTES = 4 * 2**20
_TAIL_BYTES = 8192


class StageLog:
    """The job's log: appended to, up to a limit. Keeps the last bytes, to tell how a child ended."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is created where it is missing."""
        self._stream = path.open("ab", buffering=0)
        self._room = LOG_LIMIT_BYTES - self._stream.tell()
        self.tail = b""

    def __enter__(self) -> StageLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, data: bytes) -> None:
        """Append what fits; where the limit is reached, say so once. A disk that takes nothing costs the log alone."""
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        if self._room <= 0:
            return
        try:
            self._stream.write(data[: self._room])
            self._room -= len(data)
            if self._room <= 0:
                self._stream.write(f"\n--- cut here: log.txt is limited to {LOG_LIMIT_BYTES} bytes\n".encode())
        except OSError as exc:
            self._room = 0
            logger.warning("log of a stage: the rest is not written: %s", exc.strerror)


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
