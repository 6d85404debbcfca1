"""A client of the HTTP contract: upload, submit, watch, download, cancel."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote, urlencode

import httpx

from calibration.data.given.packed_folder import pack_folder
from calibration.errors import InvalidModelError, OptimizerError
from engine_builder.errors import StageCancelledError
from service.client.answers import (
    SAME_VERSION,
    ServerUnavailableError,
    error_from_answer,
    error_from_response,
    object_from_response,
    translated,
    understood,
)
from service.client.downloads import download
from service.client.following import POLL_SECONDS, RECONNECT_SECONDS, Clock, looks
from service.client.views import ArtifactView, JobRow, JobView, UsageView, artifact_view, job_row, job_view, objects_in, usage_view
from service.errors import MethodNotAllowedError, NotFinishedError, NotFoundError, ServiceError
from service.intake.packing import pack_model
from service.jobs.live.event_text import EVENT_STREAM, ToldEvent, events_from_lines

PAGE = 100  # jobs in one answer
UPLOAD_TRIES = 3
CHUNK_BYTES = 2**20
_TIMEOUT = httpx.Timeout(30.0, read=120.0)
_NO_CONTENT = 204
_NOT_STORED = frozenset({NotFoundError.status, MethodNotAllowedError.status})


class Client:
    """Talks to one server; used with ``with``. Not to be shared between threads.

    Every method raises the server's own error (with its fix) for a problem object, and ``ServerUnavailableError`` where none answers.
    """

    def __init__(self, server: str, key: str | None = None, *, transport: httpx.BaseTransport | None = None, clock: Clock = time) -> None:
        """Make a client; nothing is sent yet.

        Args:
            server: The server's address, ``http://127.0.0.1:8000``.
            key: The bearer key, where the server has one.
            transport: Replaces the network, for tests.
            clock: Replaces the time, for tests.
        """
        headers = {"Accept-Encoding": "identity"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        try:
            self._http = httpx.Client(base_url=server, headers=headers, timeout=_TIMEOUT, follow_redirects=True, transport=transport)
        except httpx.InvalidURL as exc:
            raise _bad_address(server) from exc
        if self._http.base_url.scheme not in {"http", "https"}:
            raise _bad_address(server)
        self._clock = clock

    def upload(self, path: Path) -> str:
        """Return the id of a file on the server, which is sent there, streamed, unless its bytes are there already.

        A connection that breaks is tried again a few times.
        """
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        left = UPLOAD_TRIES
        while True:
            found = self._stored(f"sha256:{digest.hexdigest()}")
            if found is not None:
                return found
            left -= 1
            try:
                return self._sent(path, digest.digest())
            except ServerUnavailableError:
                if left == 0:
                    raise
                self._clock.sleep(POLL_SECONDS)

    def _stored(self, file_id: str) -> str | None:
        """Return the id of a file that the server has, else None."""
        try:
            return str(self._send("GET", f"/v1/files/{file_id}")["id"])
        except ServiceError as error:
            if error.status in _NOT_STORED or type(error) is ServiceError:  # the latter of a server that cannot be asked
                return None
            raise

    def _sent(self, path: Path, sha256: bytes) -> str:
        with path.open("rb") as stream:
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(path.stat().st_size),
                "Content-Digest": f"sha-256=:{base64.b64encode(sha256).decode()}:",
            }
            return str(self._send("POST", "/v1/files", content=_chunks(stream), headers=headers)["id"])

    def upload_model(self, model: Path) -> str:
        """Send a model and return its id; one with external data goes as a .zip together with them."""
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder, "model.zip")
            try:
                return self.upload(packed if pack_model(model, packed) else model)
            except OSError as exc:
                raise InvalidModelError(f"model {model}: {exc.strerror}", fix="Check the path.") from exc

    def upload_samples(self, samples: Path, what: str) -> str:
        """Send a file of samples, or a folder of them as a .zip, and return its id.

        Args:
            samples: The file or the folder.
            what: Its part, for messages: "calibration set".
        """
        if not samples.is_dir():
            return self.upload(samples)
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder, "samples.zip")
            pack_folder(samples, packed, what)
            return self.upload(packed)

    def submit(
        self,
        model_id: str,
        calibration_id: str,
        validation_id: str | None,
        config: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        metric_id: str | None = None,
        priority: int = 0,
    ) -> JobView:
        """Submit a job of uploaded files and return it; with the same idempotency key the same job is returned."""
        given: dict[str, object] = {"validation_id": validation_id, "metric_id": metric_id, "priority": priority or None}
        body: dict[str, object] = {"model_id": model_id, "calibration_id": calibration_id, "config": config}
        body |= {name: value for name, value in given.items() if value is not None}
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return understood(job_view, self._send("POST", "/v1/jobs", json=body, headers=headers))

    def get(self, job_id: str) -> JobView:
        """Return a job."""
        return understood(job_view, self._send("GET", f"/v1/jobs/{job_id}"))

    def watch(self, job_id: str, on_change: Callable[[JobView], None]) -> JobView:
        """Wait until a job is finished and return it; a server that restarts meanwhile is waited for, up to a minute.

        Args:
            job_id: The job.
            on_change: Called with the job whenever it changed.
        """
        for job in self.changes(job_id):
            on_change(job)
        return job

    def events(self, job_id: str, *, after: int = 0) -> Iterator[ToldEvent]:
        """Yield what happens to a job, from the event behind number ``after`` on, until it ends or the connection does."""
        url, headers = f"/v1/jobs/{job_id}/events", {"Last-Event-ID": str(after)} if after else {}
        with translated(), self._http.stream("GET", url, headers=headers) as response:
            if response.is_error:
                response.read()
                raise error_from_response(response)
            if response.headers.get("content-type", "").startswith(EVENT_STREAM):
                yield from events_from_lines(response.iter_lines())

    def changes(self, job_id: str, *, seconds: float | None = None) -> Iterator[JobView]:
        """Yield a job now and whenever it changed, until it is finished; a server that restarts meanwhile is waited for, up to a minute.

        Args:
            job_id: The job.
            seconds: To wait at most; then the last job is not finished. The job is looked at every half a second, without events.
        """
        if seconds is None:
            yield from looks(lambda: self.get(job_id), lambda after: self.events(job_id, after=after), is_finished, self._clock)
            return
        last: JobView | None = None
        started = answered = self._clock.monotonic()
        while True:
            try:
                job = self.get(job_id)
                answered = self._clock.monotonic()
            except ServerUnavailableError:
                if last is None or self._clock.monotonic() - answered > RECONNECT_SECONDS:
                    raise
            else:
                if job != last:
                    last = job
                    yield job
                if is_finished(job):
                    return
            left = started + seconds - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.sleep(min(POLL_SECONDS, left))

    def jobs(self, *, state: str | None = None, limit: int | None = None) -> Iterator[JobRow]:
        """Yield the server's jobs, newest first.

        Args:
            state: Only those in this state.
            limit: As many at most; None: all.
        """
        left, cursor = limit, ""
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            asked = {"limit": str(size)} | ({} if state is None else {"state": state}) | ({"cursor": cursor} if cursor else {})
            answer = self._send("GET", "/v1/jobs?" + urlencode(asked))
            page = understood(lambda answer: tuple(map(job_row, objects_in(answer, "jobs"))), answer)
            yield from page
            left = None if left is None else left - len(page)
            cursor = str(answer.get("next_cursor") or "")
            if not cursor:
                return

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job, if it is not finished, and return it."""
        return understood(job_view, self._send("POST", f"/v1/jobs/{job_id}/cancel"))

    def delete(self, job_id: str) -> None:
        """Remove a finished job and its files from the server.

        Raises:
            ServiceError: The server deletes no jobs.
        """
        if self._answered("DELETE", f"/v1/jobs/{job_id}").status_code != _NO_CONTENT:  # older servers cancel, and keep a finished job
            raise ServiceError(f"server: it deletes no jobs, and job {job_id} is still there", fix=SAME_VERSION)

    def usage(self, tenant: str | None = None) -> UsageView:
        """Return what the key may do, and what its tenant, or another that an admin names, uses of its quotas."""
        return understood(usage_view, self._send("GET", "/v1/usage?" + urlencode({} if tenant is None else {"tenant": tenant})))

    def targets(self) -> tuple[Mapping[str, object], ...]:
        """Return what the server can build for."""
        return understood(lambda answer: objects_in(answer, "targets"), self._send("GET", "/v1/targets"))

    def artifacts(self, job_id: str) -> tuple[ArtifactView, ...]:
        """Return what files a job left."""
        answer = self._send("GET", f"/v1/jobs/{job_id}/artifacts")
        return understood(lambda answer: tuple(map(artifact_view, objects_in(answer, "artifacts"))), answer)

    def download_engine(self, job_id: str, folder: Path) -> Path:
        """Download the engine of a job that succeeded and return its path."""
        result, url = self.get(job_id).result, f"/v1/jobs/{job_id}/engine"
        if result is None:
            self._send("GET", url)  # raises the server's own words
            raise NotFinishedError(f"job {job_id}: it has no engine yet", fix="Watch the job until it has succeeded.")
        return download(self._http, url, folder, understood(lambda answer: artifact_view(answer.get("engine")), result), self._clock)

    def download_artifact(self, job_id: str, artifact: ArtifactView, folder: Path) -> Path:
        """Download one artifact and return its path."""
        return download(self._http, f"/v1/jobs/{job_id}/artifacts/{quote(artifact.name)}", folder, artifact, self._clock)

    def _send(
        self,
        method: str,
        url: str,
        *,
        content: Iterator[bytes] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, object]:
        return object_from_response(self._answered(method, url, content=content, json=json, headers=headers))

    def _answered(
        self,
        method: str,
        url: str,
        *,
        content: Iterator[bytes] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        with translated():
            response = self._http.request(method, url, content=content, json=json, headers=headers)
        if response.is_error:
            raise error_from_response(response)
        return response

    def close(self) -> None:
        """Close the connection. May be called again."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def is_finished(job: JobView) -> bool:
    """Whether a job has come to its end, which is for good."""
    return job.state in {"succeeded", "failed", "cancelled"}


def job_error(job: JobView) -> OptimizerError:
    """Return the error that a failed or cancelled job ended with."""
    if job.state == "cancelled":
        return StageCancelledError(f"job {job.id} was cancelled", fix="Submit it again if it was not meant to be cancelled.")
    return error_from_answer(job.error or {"detail": f"job {job.id} is {job.state}", "fix": "Look at its log.txt."}, 500)


def _bad_address(server: str) -> ServiceError:
    return ServiceError(f"server address {server!r}: expected http://HOST:PORT", fix="Give the address that `serve` printed.")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while data := stream.read(CHUNK_BYTES):
        yield data
