"""The log of a job, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from service.errors import DamagedArtifactError, ObjectStoreError
from service.jobs.outcome import plain_lines
from service.jobs.records import Job
from service.jobs.resources import Deps
from service.worker.stage_log import LOG_NAME

logger = logging.getLogger(__name__)

TAIL_LINES = 20
WAIT_SECONDS = 2.0


def log_lines(job: Job, deps: Deps) -> Iterator[bytes]:
    """Open a job's log and give its lines; none where it has not begun.

    Raises:
        StorageError: It cannot be read now.
    """
    opened = contextlib.ExitStack()
    source = opened.enter_context(_log(job, deps))

    def lines() -> Iterator[bytes]:
        with opened:
            if source is not None:
                yield from plain_lines(source, deps.workspace(job.id))

    return lines()


class KnownTails:
    """The last lines of logs, read again only where a log has changed. Safe to share between threads.

    A log only grows, and whoever writes one anew writes another file: one with the size and the time that it had is as it was, whichever
    process writes it. It is looked at each time.
    """

    def __init__(self, deps: Deps) -> None:
        """Know none yet."""
        self._deps = deps
        self._known: dict[str, tuple[object, tuple[str, ...]]] = {}  # by job, the longest known first
        self._changing = threading.Lock()

    def of(self, job: Job) -> tuple[str, ...]:
        """Return the last lines of a job's log, the oldest first; none where the object store cannot give it."""
        try:
            kept = job.artifacts.get(LOG_NAME)
            if kept is not None and (lines := self._find(job.id, kept.sha256)) is not None:
                return lines
            with _log(job, self._deps) as source:
                version = kept.sha256 if kept is not None else _version(source)
                lines = self._find(job.id, version)
                return self._keep(job.id, version, _tail(source, self._deps.workspace(job.id))) if lines is None else lines
        except (ObjectStoreError, DamagedArtifactError) as error:
            logger.info("job %s: its log is not shown: %s", job.id, error)
            return ()

    def _find(self, job_id: str, version: object) -> tuple[str, ...] | None:
        known = self._known.get(job_id)
        return None if version is None or known is None or known[0] != version else known[1]

    def _keep(self, job_id: str, version: object, lines: tuple[str, ...]) -> tuple[str, ...]:
        with self._changing:
            self._known.pop(job_id, None)
            self._known[job_id] = version, lines
            if len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
        return lines


class LogTails:
    """The last lines of logs, for callers who do not wait for an object store that hangs. Safe to share between threads."""

    def __init__(self, tail: Callable[[Job], tuple[str, ...]], seconds: float = WAIT_SECONDS) -> None:
        """Make one.

        Args:
            tail: Returns the lines of a job's log.
            seconds: How long a caller waits for it.
        """
        self._tail = tail
        self._seconds = seconds
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="log-tail")

    def of(self, job: Job) -> tuple[str, ...]:
        """Return the lines; none where they are not there in time."""
        reading = self._readers.submit(self._tail, job)
        try:
            return reading.result(self._seconds)
        except TimeoutError:
            reading.cancel()  # if no reader has begun it: the next caller asks anew
            logger.info("job %s: its log is not shown: it could not be read within %g s", job.id, self._seconds)
            return ()


def _version(source: BinaryIO | None) -> object:
    """Return what changes with an open log; None where that cannot be told."""
    if source is None:
        return None
    try:
        found = os.fstat(source.fileno())
    except OSError:  # it is no file of this machine
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _tail(source: BinaryIO | None, workspace: Path) -> tuple[str, ...]:
    if source is None:
        return ()
    end = source.seek(0, os.SEEK_END)
    source.seek(max(end - _TAIL_BYTES, 0))
    if end > _TAIL_BYTES:
        source.readline()  # of which the start is missing
    last = io.BytesIO(b"".join(source.readlines()[-TAIL_LINES:]))
    return tuple(line.decode().rstrip() for line in plain_lines(last, workspace))


@contextlib.contextmanager
def _log(job: Job, deps: Deps) -> Iterator[BinaryIO | None]:
    """Open the log: that in the job's folder, or the one it left."""
    kept = job.artifacts.get(LOG_NAME)
    if kept is not None:
        with deps.artifacts.open(kept.sha256) as source:
            yield source
        return
    live = deps.folders.open_log(job.id)
    if live is None:
        yield None
        return
    with live:
        yield live


_READERS = 4
_KNOWN = 50  # jobs, of 8 KB at most each: more than are looked at again and again
_TAIL_BYTES = 8192
