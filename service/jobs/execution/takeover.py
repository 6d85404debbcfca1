"""Gives what a dead process had begun to those that live. The one place that recovers workflows of others.

The engine leaves that to a service of its vendor; what it does at the start of a process for its own name is done here for names whose lock
is free. ``_recover_pending_workflows`` is private to the engine, and held here alone: it puts workflows of these owners, and of no other,
back into their queues, with the steps that they have recorded.
"""

from __future__ import annotations

import contextvars
import logging

from dbos import DBOS

from service.database.members import Members

logger = logging.getLogger(__name__)


def is_run(workflow_id: str, members: Members | None) -> bool:
    """Whether a process that lives has begun a workflow, and may still be at it. Leaves no step.

    Args:
        workflow_id: Its id.
        members: The processes of the database; None: this one is alone, and works on one job at a time.
    """
    if members is None:
        return False
    found = contextvars.Context().run(DBOS.get_workflow_status, workflow_id)
    if found is None or found.status != "PENDING":
        return False
    return found.executor_id in {member.name for member in members.alive()}


def take_over(members: Members, own_name: str) -> tuple[str, ...]:
    """Put the workflows of dead processes back into their queues.

    Args:
        members: The processes of the database.
        own_name: Of this process, which is alive.

    Returns:
        The names of the dead whose workflows were put back.
    """
    begun = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
    owners = sorted({one.executor_id for one in begun if one.executor_id is not None} - {own_name})
    found = []
    for owner in owners:
        with members.taken_as_dead(owner) as is_dead:
            if is_dead and DBOS._recover_pending_workflows([owner]):  # see above
                logger.warning("process %s: it is dead; what it had begun goes on elsewhere", owner)
                found.append(owner)
    return tuple(found)
