"""The folder of a job with branches goes with that of the last of them."""

from __future__ import annotations

from contextlib import suppress

from service.errors import RemovedError, StorageError
from service.jobs.resources import Deps


def remove_parents(deps: Deps, job_id: str) -> None:
    """Remove the folder of the parent of a job, whose own is gone, if it was the last of the branches."""
    with suppress(StorageError, RemovedError):  # whoever next looks for folders that no job needs finds it
        if (parent := deps.store.get(job_id).new.parent) is not None:
            remove_unused(deps, parent)


def remove_unused(deps: Deps, parent: str) -> None:
    """Remove the folders of branches that ended before they began and, once no branch has one, that of their parent."""
    branches = deps.store.branches(parent)
    for branch in branches:
        if branch.state.is_finished and branch.started_at is None:
            deps.folders.remove(branch.id)
    if all(branch.state.is_finished and not deps.folders.is_there(branch.id) for branch in branches):
        deps.folders.remove(parent)
