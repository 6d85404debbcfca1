"""Removes a finished job: its row, its events, what the workflow engine recorded, and the files that nobody else needs."""

from __future__ import annotations

from collections.abc import Callable

from service.jobs.resources import Deps


def remove_job(job_id: str, why: str, deps: Deps, forget: Callable[[str], None]) -> bool:
    """Remove a job, unless it is not finished or its last stage is still ending. Returns whether it was removed.

    Args:
        job_id: The job.
        why: What whoever asks for it later is told: "it was deleted ...".
        deps: The server's belongings.
        forget: Removes what the workflow engine recorded of the job.
    """
    with deps.filing:  # so that no job that ends now counts on a file that goes
        if deps.workspace(job_id).exists():
            return False
        unused = deps.store.remove(job_id, why)
        if unused is None:
            return False
        for sha256 in unused:
            if not deps.artifacts.is_upload(sha256):  # an upload may serve further jobs
                deps.artifacts.remove(sha256)
    forget(job_id)
    return True
