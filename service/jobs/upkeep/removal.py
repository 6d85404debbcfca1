"""Removes a finished job: its row, its events, what the workflow engine recorded, and the files that nobody else needs."""

from __future__ import annotations

from collections.abc import Callable

from service.jobs.resources import Deps


def remove_job(job_id: str, why: str, deps: Deps, forget: Callable[[str], None]) -> frozenset[str] | None:
    """Remove a job, unless it is not finished or its last stage is still ending.

    Args:
        job_id: The job.
        why: What whoever asks for it later is told: "it was deleted ...".
        deps: The server's belongings.
        forget: Removes what the workflow engine recorded of the job or of one of its branches.

    Returns:
        Digests of the files that went with it; None where it was not removed.
    """
    with deps.filing:  # so that no job that ends now counts on a file that goes
        ids = (job_id, *(branch.id for branch in deps.store.branches(job_id)))
        if any(deps.folders.is_there(one) for one in ids):
            return None
        unused = deps.store.remove(job_id, why)
        if unused is None:
            return None
        gone = frozenset(sha256 for sha256 in unused if not deps.store.owners.is_anyones(sha256))  # an upload may serve further jobs
        for sha256 in gone:
            deps.artifacts.remove(sha256)
    for one in ids:
        forget(one)
    return gone
