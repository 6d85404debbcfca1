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
        return _download(name, job.artifacts[name], deps, request.state.is_still_good)

    @router.get("/v1/jobs/{job_id}/engines/{fingerprint}", summary="Download an engine that is offered", response_class=StreamingResponse)
    def get_offered_engine(request: Request, job_id: str, fingerprint: str, caller: CallerHere) -> Response:
        """Return an engine that another accuracy budget would give: one of `offers` in the job's result."""
        _engine_of(job := deps.store.get(job_id, caller.sees))
        name = _offered_name(job, fingerprint)
        return _download(name, job.artifacts[name], deps, request.state.is_still_good)

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
        return _download(name, job.artifacts[name], deps, request.state.is_still_good)

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


def _download(name: str, file: StoredFile, deps: Deps, is_still_good: Callable[[], bool]) -> Response:
    """Return the file, or where it is.

    Raises:
        NotFoundError: It is not stored any more.
        DamagedArtifactError: It is not what was stored.
    """
    attached = f"attachment; filename*=UTF-8''{quote(PurePosixPath(name).name)}"
    headers = {"Content-Length": str(file.size_bytes), "Content-Disposition": attached, "ETag": f'"{file.sha256}"'}
    suffix = PurePosixPath(name).suffix
    media_type = _MEDIA_TYPES.get(suffix, "application/octet-stream")
    if deps.settings.downloads == "redirect" and suffix != ".html":  # which needs headers of ours
        link = deps.artifacts.link(file.sha256, ResponseContentType=media_type, ResponseContentDisposition=attached)
        if link is not None:
            return RedirectResponse(link, 307, {"Cache-Control": "no-store"})
    try:
        deps.artifacts.require(file.sha256)
    except DamagedArtifactError as error:
        raise DamagedArtifactError(f"artifact {name!r}: {error.detail}", fix=error.fix) from error
    if suffix == ".html":  # a report holds names out of the user's model: let it run in a sandbox of its own
        headers["Content-Disposition"] = "inline"
        headers["Content-Security-Policy"] = _REPORT_POLICY
    return StreamingResponse(_chunks(file, deps, is_still_good), media_type=media_type, headers=headers)


def _chunks(file: StoredFile, deps: Deps, is_still_good: Callable[[], bool]) -> Iterator[bytes]:
    """Give the content of a file, for as long as the caller's key is good.

    Raises:
        AnswerCutError: It is good no more.
    """
    with deps.artifacts.open(file.sha256) as source:
        looked_at = time.monotonic()
        while data := source.read(_CHUNK_BYTES):
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
