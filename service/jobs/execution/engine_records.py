"""What the workflow engine recorded of jobs, for a process that runs no engine."""

from __future__ import annotations

import threading

from dbos import DBOSClient

from service.jobs.workflow_json import JsonSerializer


class EngineRecords:
    """The engine's tables. Safe to share between threads.

    They are opened once, when they are first needed: to open them takes a connection, and memory that is not all given back.
    """

    def __init__(self, url: str) -> None:
        """Open nothing yet; ``url`` is the database's."""
        self._url = url
        self._opening = threading.Lock()
        self._client: DBOSClient | None = None

    def forget(self, job_id: str) -> None:
        """Remove what is recorded of a finished job, of its stages elsewhere and of parts of them; waits while the database is away."""
        client = self._opened()
        client.delete_workflow(job_id, delete_children=True)
        for part in client.list_workflows(workflow_id_prefix=f"{job_id}:", load_input=False, load_output=False):
            client.delete_workflow(part.workflow_id)

    def close(self) -> None:
        """Close what is open."""
        with self._opening:
            client, self._client = self._client, None
        if client is not None:
            client.destroy()

    def _opened(self) -> DBOSClient:
        with self._opening:
            if self._client is None:
                self._client = DBOSClient(system_database_url=self._url, serializer=JsonSerializer())
            return self._client
