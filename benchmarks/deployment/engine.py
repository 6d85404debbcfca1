"""The workflow engine's own tables and statements, called where the threads of a worker would call them.

What a worker claims, whose records the engine accepts, and which steps it knows as finished are all said by the engine. Its statements are
private to it: they are called here, and in no part of the product.
"""

from __future__ import annotations

import itertools

import sqlalchemy as sa
from dbos import DBOS, DBOSClient
from dbos._dbos import _get_dbos_instance
from dbos._error import DBOSWorkflowConflictIDError

from service.jobs.workflow import QUEUE
from service.jobs.workflow_json import JsonSerializer


class Engine:
    """The engine of a launched process that listens to no queue."""

    def __init__(self, url: str, version: str, queues: tuple[str, ...]) -> None:
        """Register the queues as workers do.

        Args:
            url: Of its database.
            version: Of the pipeline.
            queues: Besides that of jobs, the queues of types of GPU.
        """
        self._version = version
        self._system = _get_dbos_instance()._sys_db
        self._client = DBOSClient(system_database_url=url, serializer=JsonSerializer())
        self._queues = {
            name: DBOS.register_queue(name, worker_concurrency=1, polling_interval_sec=0.2, on_conflict="always_update")
            for name in (QUEUE, *queues)
        }
        self._tokens = itertools.count(1)

    def close(self) -> None:
        """Close its connections."""
        self._client.destroy()

    @property
    def engines(self) -> tuple[sa.Engine, ...]:
        """The databases' engines."""
        return (self._system.engine, self._client._sys_db.engine)

    def claim(self, queue: str, process: str) -> tuple[str, str] | None:
        """Let a process that is free take the next workflow of a queue; return its id and the token by which the process owns it."""
        token = f"{process}-{next(self._tokens)}"
        found, _ = self._system.start_queued_workflows(
            self._queues[queue], process, self._version, None, owner_xid=token, is_latest_version=True
        )
        return (found[0], token) if found else None

    def enqueue_stage(self, queue: str, stage_id: str, job_id: str, stage: str) -> None:
        """Put a GPU stage into its queue; one that is known stays as it is."""
        self._client.enqueue(
            {"queue_name": queue, "workflow_name": "gpu_stage", "workflow_id": stage_id, "app_version": self._version},
            job_id,
            stage,
            stage,
            {},
            [0.0, 1.0],
        )

    def has_ended(self, workflow_id: str) -> bool:
        """Whether a workflow has an outcome."""
        with self._system.engine.connect() as connection:
            table = self._system.tables.workflow_status
            state = connection.execute(sa.select(table.c.status).where(table.c.workflow_uuid == workflow_id)).scalar_one_or_none()
        return state == "SUCCESS"

    def recorded(self, job_id: str) -> frozenset[int]:
        """Return the numbers of the steps of a job that are recorded."""
        with self._system.engine.connect() as connection:
            table = self._system.tables.operation_outputs
            return frozenset(connection.execute(sa.select(table.c.function_id).where(table.c.workflow_uuid == job_id)).scalars())

    def record(self, job_id: str, number: int, stage: str, token: str) -> bool:
        """Record a finished step; return whether the engine accepts it: whoever holds the token owns the job."""
        try:
            self._system.record_operation_result(
                {
                    "workflow_uuid": job_id,
                    "function_id": number,
                    "function_name": stage,
                    "started_at_epoch_ms": 0,
                    "output": "{}",
                    "error": None,
                    "child_workflow_id": None,
                    "serialization": None,
                },
                owner_xid=token,
            )
        except DBOSWorkflowConflictIDError:
            return False
        return True

    def end(self, workflow_id: str, token: str) -> bool:
        """Record the outcome of a workflow; return whether the engine accepts it."""
        return self._system.update_workflow_outcome(workflow_id, "SUCCESS", output='"succeeded"', owner_xid=token)
