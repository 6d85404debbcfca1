"""The server's log: a line an event, of which no part can forge another line, fill the disk, name a user's folders or hold a key."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from calibration.plain_text import plain_text
from service.access.key_text import without_secrets

MAX_TRACE_LINES = 400


class PlainLines(logging.Formatter):
    """Writes each record as one line of plain text, and what was raised below it, cut where it is long."""

    def __init__(self, hidden: Sequence[str]) -> None:
        """Make one; ``hidden`` are folders that no line names."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._hidden = hidden

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        """Return the line without what was raised."""
        record.message = self._plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802  # the library's name
        """Return what was raised, line by line."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]  # the library's own triple
        if len(lines) > MAX_TRACE_LINES:
            half = MAX_TRACE_LINES // 2
            lines = [*lines[:half], f"... ({len(lines) - 2 * half} lines cut) ...", *lines[-half:]]
        return "\n".join(map(self._plain, lines))

    def _plain(self, text: str) -> str:
        return without_secrets(plain_text(text, hidden=self._hidden))


class JsonLines(PlainLines):
    """Writes each record as one JSON object a line: time, level, logger, message, the job it is about, and what was raised."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        message = self._plain(record.getMessage())
        found: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
        }
        if about := _JOB.match(message):
            found["job"] = about[1]
        if record.exc_info:
            found["raised"] = self.formatException(record.exc_info)
        return json.dumps(found)


def log_plain_lines(hidden: Sequence[str], log_format: str = "text") -> None:
    """Send the process's log to stderr, from INFO on, unless somebody has set it up already.

    Args:
        hidden: Folders that no line names.
        log_format: ``text``, or ``json`` for one object a line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(hidden) if log_format == "json" else PlainLines(hidden))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


_JOB = re.compile(r"job ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")  # how every line about a job begins
