"""Makes room: finished jobs and uploads go when they are old, or when all together take too much, the oldest first.

Of a job that went a row stays for some weeks, so that whoever asks for it is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from service.jobs.artifacts import KeptFile
from service.jobs.resources import Deps
from service.jobs.upkeep.removal import remove_job

logger = logging.getLogger(__name__)

TOLD_DAYS = 30.0  # who asks for a removed job is told so for so long at least
GRACE_SECONDS = 3600.0  # an upload is kept so long at least: a job that uses it may come


def collect_old(deps: Deps, forget: Callable[[str], None]) -> None:
    """Remove what is older than the operator wants, then the oldest of the rest until it has room.

    What was removed is told of for ``TOLD_DAYS``, or as long as finished jobs are kept where that is longer; then it is as if it had never
    been. While a job's folder is there it is told of: a folder whose job nobody knows would become a job again at the next start.

    Args:
        deps: The server's belongings.
        forget: Removes what the workflow engine recorded of a job.
    """
    days, most = deps.settings.retention_days, deps.settings.retention_bytes
    now = deps.clock().timestamp()
    told_days = max(TOLD_DAYS, days or 0.0)
    deps.store.forget_removed(now - told_days * _DAY_SECONDS, lambda job_id: deps.workspace(job_id).exists())
    if days is not None:
        until = now - days * _DAY_SECONDS
        why = f"the server keeps finished jobs for {days:g} days, and it was removed"
        jobs = [job_id for job_id, finished_at in deps.store.finished_before(until) if remove_job(job_id, why, deps, forget) is not None]
        uploads = [file for file in _unused_files(deps) if file.used_at < min(until, now - GRACE_SECONDS)]
        _remove_files(uploads, deps)
        _log(jobs, uploads)
    if most is not None:
        _make_room(most, now, deps, forget)


def _make_room(most: int, now: float, deps: Deps, forget: Callable[[str], None]) -> None:
    sizes = {file.sha256: file.size_bytes for file in deps.artifacts.files()}
    total = sum(sizes.values())
    if total <= most:
        return
    why = f"the server keeps {most} bytes of results, and it was removed as the oldest"
    finished = deps.store.finished_before(now)
    found: list[tuple[float, str, KeptFile | None]] = [(finished_at, job_id, None) for job_id, finished_at in finished]
    found += [(file.used_at, file.sha256, file) for file in _unused_files(deps) if file.used_at < now - GRACE_SECONDS]
    jobs, uploads = [], []
    for _, name, file in sorted(found, key=lambda item: item[:2]):
        if total <= most:
            break
        if file is not None:
            _remove_files([file], deps)
            uploads.append(file)
            total -= file.size_bytes
        elif (removed := remove_job(name, why, deps, forget)) is not None:
            jobs.append(name)
            total -= sum(sizes.get(sha256, 0) for sha256 in removed)
    _log(jobs, uploads)
    if total > most:
        logger.warning("retention: %s bytes are kept, %s are wanted: the rest belongs to jobs that run or to new uploads", total, most)


def _unused_files(deps: Deps) -> list[KeptFile]:
    """Return the files that no finished job needs; a job that is not finished has its files in a folder of its own."""
    used = deps.store.file_uses.all()
    return [file for file in deps.artifacts.files() if file.sha256 not in used]


def _remove_files(files: list[KeptFile], deps: Deps) -> None:
    with deps.filing:  # a job that ends now may count on one of them
        used = deps.store.file_uses.all()
        for file in files:
            if file.sha256 not in used:
                deps.artifacts.remove(file.sha256)
                deps.store.owners.forget([file.sha256])


def _log(jobs: list[str], uploads: list[KeptFile]) -> None:
    if jobs or uploads:
        size = sum(file.size_bytes for file in uploads)
        logger.info("retention: removed %s jobs (%s) and %s files of %s bytes", len(jobs), ", ".join(jobs), len(uploads), size)


_DAY_SECONDS = 24 * 3600.0
