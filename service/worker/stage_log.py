"""The job's log, into which its stages write."""

from __future__ import annotations

import logging
from pathlib import Path

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
