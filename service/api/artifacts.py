"""/v1/jobs/{id}/engine, /v1/jobs/{id}/engines/{fingerprint} and /v1/jobs/{id}/artifacts: downloads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from calibration.codec import as_object
from service.api.access.roles import CallerHere
from service.api.every_answer import AnswerCutError
from service.api.partial_content import is_had, wanted_part
from service.errors import DamagedArtifactError, GoneError, NotFinishedError, NotFoundError
from service.jobs.outcome import offered_engines
from service.jobs.records import Job, JobState, StoredFile
from service.jobs.resources import Deps

LOOK_SECONDS = 2.0  # between two looks at the key of a download that goes on


def artifacts_router(deps: Deps) -> APIRouter:
    """Return the routes of downloads."""
    router = APIRouter(tags=["artifacts"])

    @router.get("/v1/jobs/{job_id}/engine", summary="Download the engine", response_class=StreamingResponse)
    def get_engine(request: Request, job_id: str, caller: CallerHere) -> Response:
        """Return the engine of a job that has succeeded."""
        name = _engine_of(job := deps.store.get(job_id, caller.sees))
        return _download(name, job.artifacts[name], deps, request)

    @router.get("/v1/jobs/{job_id}/engines/{fingerprint}", summary="Download an engine that is offered", response_class=StreamingResponse)
    def get_offered_engine(request: Request, job_id: str, fingerprint: str, caller: CallerHere) -> Response:
        """Return an engine that another accuracy budget would give: one of `offers` in the job's result."""
        _engine_of(job := deps.store.get(job_id, caller.sees))
        name = _offered_name(job, fingerprint)
        return _download(name, job.artifacts[name], deps, request)

    @router.get("/v1/jobs/{job_id}/artifacts", summary="List the files of a job")
    def list_artifacts(job_id: str, caller: CallerHere) -> JSONResponse:
        """Return everything that the job left: reports, the engine, the log."""
        job = deps.store.get(job_id, caller.sees)
        files = [
            {"name": name, "sha256": file.sha256, "size_bytes": file.size_bytes, "link": f"/v1/jobs/{job_id}/artifacts/{quote(name)}"}
            for name, file in sorted(job.artifacts.items())
        ]
        return JSONResponse({"artifacts": files})

    @router.get("/v1/jobs/{job_id}/artifacts/{name:path}", summary="Download a file of a job", response_class=StreamingResponse)
    def get_artifact(request: Request, job_id: str, name: str, caller: CallerHere) -> Response:
        """Return one file that the job left."""
        job = deps.store.get(job_id, caller.sees)
        if name not in job.artifacts:
            known = ", ".join(sorted(job.artifacts)) or "none yet"
            raise NotFoundError(f"job {job_id}: it has no artifact {name!r}, only {known}", fix="Choose one of those.")
        return _download(name, job.artifacts[name], deps, request)

    return router


def _engine_of(job: Job) -> str:
    """Return the name of a job's engine.

    Raises:
        NotFinishedError: The job has not succeeded.
    """
    if job.state is JobState.SUCCEEDED and job.new.branches:
        engines = as_object(as_object(job.result)["engines"]).values()
        names = [str(as_object(one["engine"])["name"]) for one in map(as_object, engines) if one["engine"] is not None]
        raise NotFoundError(
            f"job {job.id}: it has an engine for each of {job.new.branches} types of GPU",
            fix=f"Download one as an artifact: {', '.join(names)}.",
        )
    if job.state is not JobState.SUCCEEDED or job.engine is None:
        fix = "Submit a new job." if job.state.is_finished else "Wait until its state is succeeded."
        raise NotFinishedError(f"job {job.id}: its state is {job.state}, only a job that has succeeded has an engine", fix=fix)
    return job.engine


def _offered_name(job: Job, fingerprint: str) -> str:
    """Return the name of the file of an offered engine.

    Raises:
        GoneError: The engine was measured, but there is no file of it.
        NotFoundError: The job knows of no such engine.
    """
    offered = {str(engine["fingerprint"]): engine for engine in offered_engines(job.result or {})}
    had = [name for name, engine in offered.items() if engine["file"] is not None]
    known = ", ".join(had) or "none"
    if fingerprint in had:
        return str(as_object(offered[fingerprint]["file"])["name"])
    if fingerprint in offered:
        why = str(offered[fingerprint]["no_file"])
        raise GoneError(f"job {job.id}: there is no file of engine {fingerprint}: {why}", fix=f"Engines with a file: {known}.")
    if any(trial.get("fingerprint") == fingerprint for trial in job.trials):
        raise GoneError(
            f"job {job.id}: engine {fingerprint} was measured and not kept: it is on no offer, since another is as accurate and faster, or "
            "it is not faster than the baseline",
            fix=f"Engines with a file: {known}.",
        )
    raise NotFoundError(f"job {job.id}: it has no engine {fingerprint!r}, only {known}", fix="Choose one of `offers` in its result.")


def _download(name: str, file: StoredFile, deps: Deps, request: Request) -> Response:
    """Return the file, the part of it that is asked for, or where it is; or that the caller has it.

    Raises:
        NotFoundError: It is not stored any more.
        DamagedArtifactError: It is not what was stored.
        UnsatisfiableRangeError: It has no such part.
    """
    attached, etag = f"attachment; filename*=UTF-8''{quote(PurePosixPath(name).name)}", f'"{file.sha256}"'
    headers = {"Content-Disposition": attached, "ETag": etag, "Accept-Ranges": "bytes"}
    if is_had(request.headers, etag):
        return Response(status_code=304, headers=headers)
    suffix = PurePosixPath(name).suffix
    media_type = _MEDIA_TYPES.get(suffix, "application/octet-stream")
    if deps.settings.downloads == "redirect" and suffix != ".html":  # which needs headers of ours
        link = deps.artifacts.link(file.sha256, ResponseContentType=media_type, ResponseContentDisposition=attached)
        if link is not None:
            return RedirectResponse(link, 307, {"Cache-Control": "no-store"})
    part = wanted_part(request.headers, etag, file.size_bytes)
    try:
        deps.artifacts.require(file.sha256)
    except DamagedArtifactError as error:
        raise DamagedArtifactError(f"artifact {name!r}: {error.detail}", fix=error.fix) from error
    if suffix == ".html":  # a report holds names out of the user's model: let it run in a sandbox of its own
        headers["Content-Disposition"] = "inline"
        headers["Content-Security-Policy"] = _REPORT_POLICY
    sent = range(file.size_bytes) if part is None else part
    headers["Content-Length"] = str(len(sent))
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size_bytes}"
    chunks = _chunks(file, sent, deps, request.state.is_still_good)
    return StreamingResponse(chunks, 200 if part is None else 206, media_type=media_type, headers=headers)


def _chunks(file: StoredFile, part: range, deps: Deps, is_still_good: Callable[[], bool]) -> Iterator[bytes]:
    """Give some bytes of a file, for as long as the caller's key is good.

    Raises:
        AnswerCutError: It is good no more.
    """
    with deps.artifacts.open(file.sha256) as source:
        source.seek(part.start)
        left, looked_at = len(part), time.monotonic()
        while data := source.read(min(_CHUNK_BYTES, left)):
            left -= len(data)
            if time.monotonic() - looked_at >= LOOK_SECONDS:
                looked_at = time.monotonic()
                if not is_still_good():
                    raise AnswerCutError("its key is good no more")
            yield data


_MEDIA_TYPES = {".json": "application/json", ".html": "text/html", ".txt": "text/plain", ".zip": "application/zip"}
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
)
_CHUNK_BYTES = 2**20
