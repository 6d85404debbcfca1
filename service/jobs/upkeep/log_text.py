"""The log of a job, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from service.jobs.outcome import plain_lines
from service.jobs.records import Job
from service.jobs.resources import Deps
from service.worker.stage_log import LOG_NAME

TAIL_LINES = 20


def log_lines(job: Job, deps: Deps) -> Iterator[bytes]:
    """Give the lines of a job's log; none where it has not begun."""
    with _log(job, deps) as source:
        if source is not None:
            yield from plain_lines(source, deps.workspace(job.id))


def log_tail(job: Job, deps: Deps) -> tuple[str, ...]:
    """Return the last lines of a job's log, the oldest first."""
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
    kept, path = job.artifacts.get(LOG_NAME), deps.workspace(job.id) / LOG_NAME
    if kept is not None:
        with deps.artifacts.open(kept.sha256) as source:
            yield source
        return
    try:
        live = path.open("rb")
    except OSError:  # the job has not begun, or ends just now
        yield None
        return
    with live:
        yield live


_TAIL_BYTES = 8192
