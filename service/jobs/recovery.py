"""Makes the jobs table and the workflow engine agree at start, whatever moment the last process ended in."""

from __future__ import annotations

import logging

from dbos import DBOS

from calibration.errors import OptimizerError
from engine_builder.workspace.tree_removal import remove_tree
from service.jobs.records import JobState
from service.jobs.resources import Deps
from service.jobs.workflow import Workflows

logger = logging.getLogger(__name__)


def reconcile(workflows: Workflows, deps: Deps) -> None:
    """Enqueue what was forgotten, start anew what an older version left, and remove folders that no job needs.

    The engine itself goes on with the jobs that it knows under our version. Here come the others:
    1. A job that the engine does not know (the process ended between the row and the enqueue) is enqueued.
    2. A job that another version of the pipeline began is enqueued anew: its recorded steps would not fit.
    3. A job that the engine gave up (it ended the whole server again and again) is failed.
    4. A folder of a finished job, or of a request that never became a job, is removed.

    Args:
        workflows: The launched engine.
        deps: The server's belongings.
    """
    unfinished = deps.store.list(states=(JobState.QUEUED, JobState.RUNNING))
    ids = [job.id for job in unfinished]
    found_all = DBOS.list_workflows(workflow_ids=ids, load_input=False, load_output=False) if ids else []
    known = {found.workflow_id: found for found in found_all}
    for job in reversed(unfinished):  # oldest first
        found = known.get(job.id)
        if found is None:  # case 1
            workflows.enqueue(job.id)
        elif found.app_version != deps.pipeline.version:  # case 2
            logger.info("job %s: begun by version %s of the pipeline, starts anew", job.id, found.app_version)
            deps.store.restart_search(job.id)
            DBOS.delete_workflow(job.id)
            workflows.enqueue(job.id)
        elif found.status not in _ALIVE and not deps.store.state(job.id).is_finished:  # case 3; it may have ended since we asked
            deps.store.fail(job.id, _gave_up(found.status).problem(), {})
    folder = deps.workspace("any").parent
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in set(ids):  # case 4
            remove_tree(path)


def _gave_up(status: str) -> OptimizerError:
    return OptimizerError(
        f"the job ended without an outcome (the workflow engine says {status})", fix="Report it with the job's id and the server's log."
    )


_ALIVE = {"ENQUEUED", "PENDING", "DELAYED"}
