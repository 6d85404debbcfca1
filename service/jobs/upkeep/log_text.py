"""The log of a job, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def log_tail(job: Job, deps: Deps) -> tuple[str, ...]:
    """Return the last lines of a job's log, the oldest first; none where the object store cannot give it."""
    try:
        return _tail(job, deps)
    except (ObjectStoreError, DamagedArtifactError) as error:
        logger.info("job %s: its log is not shown: %s", job.id, error)
        return ()


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


def _tail(job: Job, deps: Deps) -> tuple[str, ...]:
    with _log(job, deps) as source:
        if source is None:
            return ()
        end = source.seek(0, os.SEEK_END)
        source.seek(max(end - _TAIL_BYTES, 0))
        if end > _TAIL_BYTES:
            source.readline()  # of which the start is missing
        lines = [line.decode().rstrip() for line in plain_lines(source, deps.workspace(job.id))]
    return tuple(lines[-TAIL_LINES:])


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
_TAIL_BYTES = 8192
