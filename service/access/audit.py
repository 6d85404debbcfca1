"""The audit log: who did what, and who was refused; a line of JSON each, in files that together never grow past a size.

What callers with a key did and what strangers were refused stand in files of their own, each with half of the room: whoever has no key
can push no line of the others out. A line never holds a secret: of keys their ids, of addresses no query. It is written before the answer's
body is sent; a disk that does not take it costs a warning in the server's log, not the answer.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from calibration.plain_text import plain_text
from service.access.key_text import without_secrets

logger = logging.getLogger(__name__)

FOLDER = "audit"
MAX_FIELD_CHARACTERS = 200
KEY_CREATED = "key created"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody did or was refused."""

    time: str  # "2026-11-29T10:00:00.123Z"
    action: str  # "submit", "cancel", "delete", "download", "upload", "key created", "refused", ...
    key: str | None = None  # id of the key; None: there was none that is good
    tenant: str | None = None
    route: str | None = None  # "POST /v1/jobs"
    job: str | None = None
    status: int | None = None  # of the answer
    address: str | None = None  # of the client
    about: str | None = None  # what else there is to say


class AuditLog:
    """Appends entries and reads them. Safe to share between threads; another process may append too."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Write into a folder, which is made for this user alone with the first entry.

        Args:
            folder: The folder.
            max_bytes: Of all files together.
        """
        self._folder = folder
        self._file_bytes = max_bytes // (len(_KINDS) * _FILES)
        self._writing = threading.Lock()

    def write(self, entry: AuditEntry) -> None:
        """Append an entry; of an unknown caller in a file of its own."""
        fields = {name: _clean(value) for name, value in asdict(entry).items() if value is not None}
        line = json.dumps(fields).encode() + b"\n"
        path = self._folder / (_KNOWN if entry.key is not None else _UNKNOWN)
        try:
            with self._writing:
                self._append(path, line)
        except OSError as exc:
            logger.warning("audit log: an entry was not written: %s: %s", exc.strerror, line.decode().rstrip())

    def entries(self, *, since: datetime | None = None, tenant: str | None = None) -> Iterator[AuditEntry]:
        """Give the entries, the newest first.

        Args:
            since: Only those from then on.
            tenant: Only those of this tenant.
        """
        first = "" if since is None else time_text(since)
        for entry in heapq.merge(*map(self._entries_of, _KINDS), key=lambda entry: entry.time, reverse=True):
            if entry.time < first:
                return
            if tenant is None or entry.tenant == tenant:
                yield entry

    def knows_keys(self) -> bool:
        """Whether an entry tells of a key of the database."""
        return any(entry.action == KEY_CREATED or _KEY_ID.fullmatch(entry.key or "") for entry in self.entries())

    def _append(self, path: Path, line: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0) as file:
            file.write(line)
            is_full = file.tell() >= self._file_bytes
        if is_full:
            for number in range(_FILES - 2, -1, -1):  # the oldest goes
                older = _numbered(path, number)
                if older.exists():
                    older.replace(_numbered(path, number + 1))

    def _entries_of(self, name: str) -> Iterator[AuditEntry]:
        for number in range(_FILES):
            try:
                text = _numbered(self._folder / name, number).read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue
            for line in reversed(text.splitlines()):
                entry = _entry(line)
                if entry is not None:
                    yield entry


def time_text(moment: datetime) -> str:
    """Return a moment as entries have it, which sorts by time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _entry(line: str) -> AuditEntry | None:
    """Return the entry in a line; None of one that was cut off."""
    try:
        return AuditEntry(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _clean(value: object) -> object:
    return without_secrets(plain_text(value))[:MAX_FIELD_CHARACTERS] if isinstance(value, str) else value


def _numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


_KNOWN = "audit.jsonl"
_UNKNOWN = "refused.jsonl"
_KINDS = (_KNOWN, _UNKNOWN)
_FILES = 4  # of each kind
_KEY_ID = re.compile("[0-9a-f]{12}")
