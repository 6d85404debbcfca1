"""A client of the HTTP contract: upload, submit, watch, download, cancel."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self, TypeVar
from urllib.parse import quote

import httpx

from calibration.data.given.packed_folder import pack_folder
from calibration.errors import InputError, InvalidConfigError, InvalidModelError, OptimizerError, error_from_problem
from engine_builder.errors import StageCancelledError
from service.client.views import ArtifactView, JobView, artifact_view, job_view, objects_in
from service.errors import MethodNotAllowedError, NotFinishedError, NotFoundError, ServiceError
from service.intake.packing import pack_model

POLL_SECONDS = 0.5
RECONNECT_SECONDS = 60.0
UPLOAD_TRIES = 3
CHUNK_BYTES = 2**20
_TIMEOUT = httpx.Timeout(30.0, read=120.0)
_CLIENT_ERRORS = range(400, 500)
_NOT_STORED = frozenset({NotFoundError.status, MethodNotAllowedError.status})
_SAME_VERSION = "Check the address given with --server, and that client and server have the same version."
T = TypeVar("T")


class ServerUnavailableError(OptimizerError):
    """No server answers, or what answers is none of ours."""

    slug = "server-unavailable"
    title = "Server unavailable"


class DownloadError(OptimizerError):
    """What arrived is not what the server promised."""

    slug = "download-failed"
    title = "Download failed"


class Clock(Protocol):
    """Time, for waiting between two looks at a job."""

    def monotonic(self) -> float:
        """Return seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


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
    ) -> JobView:
        """Submit a job of uploaded files and return it; with the same idempotency key the same job is returned."""
        body = {"model_id": model_id, "calibration_id": calibration_id, "config": config}
        if validation_id is not None:
            body["validation_id"] = validation_id
        if metric_id is not None:
            body["metric_id"] = metric_id
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return _understood(job_view, self._send("POST", "/v1/jobs", json=body, headers=headers))

    def get(self, job_id: str) -> JobView:
        """Return a job."""
        return _understood(job_view, self._send("GET", f"/v1/jobs/{job_id}"))

    def watch(self, job_id: str, on_change: Callable[[JobView], None]) -> JobView:
        """Wait until a job is finished and return it; a server that restarts meanwhile is waited for, up to a minute.

        Args:
            job_id: The job.
            on_change: Called with the job whenever it changed.
        """
        last: JobView | None = None
        answered = self._clock.monotonic()
        while True:
            try:
                job = self.get(job_id)
                answered = self._clock.monotonic()
            except ServerUnavailableError:
                if last is None or self._clock.monotonic() - answered > RECONNECT_SECONDS:
                    raise
            else:
                if job != last:
                    on_change(job)
                    last = job
                if job.state in {"succeeded", "failed", "cancelled"}:
                    return job
            self._clock.sleep(POLL_SECONDS)

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job, if it is not finished, and return it."""
        self._send("DELETE", f"/v1/jobs/{job_id}")
        return self.get(job_id)

    def targets(self) -> tuple[Mapping[str, object], ...]:
        """Return what the server can build for."""
        return _understood(lambda answer: objects_in(answer, "targets"), self._send("GET", "/v1/targets"))

    def artifacts(self, job_id: str) -> tuple[ArtifactView, ...]:
        """Return what files a job left."""
        answer = self._send("GET", f"/v1/jobs/{job_id}/artifacts")
        return _understood(lambda answer: tuple(map(artifact_view, objects_in(answer, "artifacts"))), answer)

    def download_engine(self, job_id: str, folder: Path) -> Path:
        """Download the engine of a job that succeeded and return its path."""
        result, url = self.get(job_id).result, f"/v1/jobs/{job_id}/engine"
        if result is None:
            self._send("GET", url)  # raises the server's own words
            raise NotFinishedError(f"job {job_id}: it has no engine yet", fix="Watch the job until it has succeeded.")
        return self._download(url, folder, _understood(lambda answer: artifact_view(answer.get("engine")), result))

    def download_artifact(self, job_id: str, artifact: ArtifactView, folder: Path) -> Path:
        """Download one artifact and return its path."""
        return self._download(f"/v1/jobs/{job_id}/artifacts/{quote(artifact.name)}", folder, artifact)

    def _download(self, url: str, folder: Path, promised: ArtifactView) -> Path:
        """Stream into ``<name>.part``, check the content, then rename; nothing else is left behind."""
        name, sha256 = promised.name, promised.sha256
        if "\\" in name or any(part in {"", ".", ".."} for part in name.split("/")):
            raise DownloadError(
                f"file name {name!r} from the server: expected one inside the folder", fix="Report it to who runs the server."
            )
        part = folder / (name + ".part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise InvalidConfigError(f"output folder {folder}: {exc.strerror}", fix="Choose a folder that you may write to.") from exc
        digest = hashlib.sha256()
        try:
            with _translated(), self._http.stream("GET", url) as response, part.open("wb") as stream:
                if response.is_error:
                    response.read()
                    raise _error_from_response(response)
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    stream.write(chunk)
                    digest.update(chunk)
            if digest.hexdigest() != sha256:
                raise DownloadError(
                    f"{name}: content {digest.hexdigest()[:12]} arrived, {sha256[:12]} was promised", fix="Download it again."
                )
            return part.replace(folder / name)
        finally:
            part.unlink(missing_ok=True)

    def _send(
        self,
        method: str,
        url: str,
        *,
        content: Iterator[bytes] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, object]:
        with _translated():
            response = self._http.request(method, url, content=content, json=json, headers=headers)
        if response.is_error:
            raise _error_from_response(response)
        return _object_from_response(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()


def job_error(job: JobView) -> OptimizerError:
    """Return the error that a failed or cancelled job ended with."""
    if job.state == "cancelled":
        return StageCancelledError(f"job {job.id} was cancelled", fix="Submit it again if it was not meant to be cancelled.")
    return _error_from_problem(job.error or {"detail": f"job {job.id} is {job.state}", "fix": "Look at its log.txt."}, 500)


def _understood(view: Callable[[Mapping[str, object]], T], answer: Mapping[str, object]) -> T:
    """Return what a view shows of an answer, which may be that of another program."""
    try:
        return view(answer)
    except TypeError as exc:
        raise ServerUnavailableError(f"server: its answer is none of ours: {exc}", fix=_SAME_VERSION) from exc


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as exc:
        raise ServerUnavailableError(
            f"server: no answer ({str(exc) or type(exc).__name__})",
            fix="Start it with `onnx-trt-optimizer serve`, or give its address with --server.",
        ) from exc


def _error_from_response(response: httpx.Response) -> OptimizerError:
    problem: object = None
    with contextlib.suppress(ValueError):
        problem = response.json()
    if isinstance(problem, dict) and "detail" in problem and "fix" in problem:
        return _error_from_problem(problem, response.status_code)
    detail = f"server: answered {response.status_code} {response.reason_phrase} to {response.request.method} {response.request.url.path}"
    if response.status_code in _CLIENT_ERRORS:
        return ServiceError(detail, fix=_SAME_VERSION)
    return ServerUnavailableError(detail, fix="Try again in a moment, or ask who runs the server.")


def _error_from_problem(problem: Mapping[str, object], status: int) -> OptimizerError:
    found = error_from_problem(problem)
    stated = problem.get("status", status)
    if type(found) is OptimizerError and isinstance(stated, int) and stated in _CLIENT_ERRORS:
        return InputError(found.detail, fix=found.fix)  # a newer server may know errors that we do not
    return found


def _object_from_response(response: httpx.Response) -> dict[str, object]:
    try:
        value = response.json()
    except ValueError as exc:
        raise _not_ours(response) from exc
    if not isinstance(value, dict):
        raise _not_ours(response)
    return value


def _not_ours(response: httpx.Response) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"server: {response.request.url} answered something that is not a JSON object", fix="Check the address given with --server."
    )


def _bad_address(server: str) -> ServiceError:
    return ServiceError(f"server address {server!r}: expected http://HOST:PORT", fix="Give the address that `serve` printed.")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while data := stream.read(CHUNK_BYTES):
        yield data
