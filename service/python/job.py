"""A job on a server, as Python sees it: watched, waited for, downloaded, cancelled, deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine_builder.errors import EngineError
from service.client.answers import understood
from service.client.client import Client as HttpClient
from service.client.client import is_finished, job_error
from service.client.downloads import write_result
from service.client.views import JobRow, JobView, job_row
from service.errors import InvalidRequestError, NotFinishedError
from service.python.events import Event, EventsOfViews
from service.python.given import output_folder
from service.python.result import Result, result_from_json

_REPORT = "report.html"


class WaitTimeoutError(EngineError):
    """A job took longer than its caller wanted to wait; it goes on."""

    slug = "wait-timeout"
    title = "Waited too long"


class Job:
    """A job on a server. Made by ``Client``; usable while that is open, by one thread."""

    def __init__(self, http: HttpClient, last: JobRow) -> None:
        """Make a handle; nothing is sent.

        Args:
            http: The connection.
            last: What the server said of the job.
        """
        self._http = http
        self._last = last
        self._result: Result | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self._last.id

    @property
    def last(self) -> JobRow:
        """What the server last said of the job, without asking it again: state, stage, progress."""
        return self._last

    def status(self) -> JobRow:
        """Ask the server for the job's state, stage and progress, and return them.

        Raises:
            OptimizerError: The server's own error, or ``ServerUnavailableError``.
        """
        return self._seen(self._http.get(self.id))

    def watch(self) -> Iterator[Event]:
        """Yield what happened to the job and what happens to it, until an ``EndEvent``, which is the last.

        A server that restarts meanwhile is waited for, up to a minute.

        Raises:
            OptimizerError: The server's own error, or ``ServerUnavailableError``; not that of a job that fails, which the last event has.
        """
        told = EventsOfViews()
        for view in self._http.changes(self.id):
            self._seen(view)
            yield from told.of(view)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the job has ended, and return its result.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            WaitTimeoutError: The job has not ended by then. It goes on.
            InvalidRequestError: It is for several types of GPU: wait for each of its ``branches``.
            OptimizerError: What the job failed with; ``StageCancelledError`` of a cancelled one.
        """
        for view in self._http.changes(self.id, seconds=timeout):
            self._seen(view)
            _require_one_type(view)
        if not is_finished(view):
            raise WaitTimeoutError(
                f"job {self.id}: {view.state} at {view.progress:.0%} after {timeout:g} seconds", fix="Wait longer, or cancel it."
            )
        return self._ended(view)

    @property
    def result(self) -> Result:
        """What the job found; the server is asked, unless it has told before.

        Raises:
            NotFinishedError: The job has not ended.
            InvalidRequestError: It is for several types of GPU: ask each of its ``branches``.
            OptimizerError: What the job failed with; ``StageCancelledError`` of a cancelled one.
        """
        if self._result is not None:
            return self._result
        view = self._http.get(self.id)
        self._seen(view)
        _require_one_type(view)
        if not is_finished(view):
            raise NotFinishedError(f"job {self.id}: it is {view.state}", fix="Wait for it: job.wait().")
        return self._ended(view)

    def download(self, folder: str | os.PathLike[str]) -> Result:
        """Download the engine and all other files of the job, and return its result with the paths of engine and report.

        Args:
            folder: For the files; it is made where it is not there.

        Raises:
            NotFinishedError: The job has not ended.
            OptimizerError: What the job failed with, or of the download.
        """
        found, target = self.result, output_folder(folder)
        engine = self._http.download_engine(self.id, target)
        files = {engine.name: engine}
        for artifact in self._http.artifacts(self.id):
            if artifact.name not in files:
                files[artifact.name] = self._http.download_artifact(self.id, artifact, target)
        write_result(found.json, target)
        return result_from_json(found.json, engine=engine, report=files.get(_REPORT))

    def branches(self) -> dict[str, Job]:
        """Return the jobs that make the engines of one for several types of GPU, by the type; empty of a job for one.

        Raises:
            OptimizerError: The server's own error, or ``ServerUnavailableError``.
        """
        view = self._http.get(self.id)
        self._seen(view)
        return {str(one["gpu"]): Job(self._http, understood(job_row, one)) for one in view.branches}

    def cancel(self) -> JobRow:
        """Cancel the job, for good, and return its state; a finished one stays as it is."""
        return self._seen(self._http.cancel(self.id))

    def delete(self) -> None:
        """Remove the job and its files from the server.

        Raises:
            NotFinishedError: It has not ended: cancel it first.
            OptimizerError: The server's own error; ``ServiceError`` of one that deletes no jobs.
        """
        view = self._http.get(self.id)
        self._seen(view)
        if not is_finished(view):
            raise NotFinishedError(f"job {self.id}: it is {view.state}, only a finished job can be deleted", fix="Cancel it first.")
        self._http.delete(self.id)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self._last.state!r})"

    def _seen(self, view: JobView) -> JobRow:
        self._last = JobRow(view.id, view.state, view.stage, view.progress, self._last.created_at, self._last.target)
        return self._last

    def _ended(self, view: JobView) -> Result:
        if view.result is None:
            raise job_error(view)
        self._result = result_from_json(view.result)
        return self._result


def _require_one_type(view: JobView) -> None:
    if view.branches:
        types = ", ".join(str(one.get("gpu")) for one in view.branches)
        raise InvalidRequestError(
            f"job {view.id}: it has a result for each of its types of GPU: {types}", fix='Ask for one: job.branches()["TYPE"].wait().'
        )
