"""/v1/jobs: submit, list, read the log, cancel, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import JsonValue
from starlette.concurrency import run_in_threadpool

from calibration.data.readers import formats_in_words
from engine_builder.config.config import json_schema
from service.api.access.roles import CallerHere, check_still_good, tenant_seen
from service.api.live.status import Shown
from service.errors import InvalidRequestError, UnfinishedError
from service.jobs.live.shown import job_json, row_json
from service.jobs.records import JobState
from service.jobs.resources import Deps
from service.jobs.submission import MAX_PRIORITY, REQUIRED, ROLES, TEXT_FIELDS, check_before_reading, submit, takes_a_child
from service.jobs.upkeep import webhook_request
from service.jobs.upkeep.log_text import log_lines
from service.jobs.upkeep.removal import remove_job
from service.jobs.upkeep.workspaces import remove_parents, remove_unused
from service.jobs.uploads import receive_form

MAX_PAGE = 100
MAX_CHILDREN = 2  # requests at a time that have uploads read by child processes; further ones wait, and hold up no other request


def jobs_router(deps: Deps, hand_over: Callable[[str], None], forget: Callable[[str], None], shown: Shown) -> APIRouter:
    """Return the routes of jobs, but for that which looks at one.

    Args:
        deps: The server's belongings.
        hand_over: Lets a queued job run when its turn comes; takes no time.
        forget: Removes what the workflow engine recorded of a job.
        shown: Answers with a job.
    """
    router = APIRouter(tags=["jobs"])
    few = CapacityLimiter(MAX_CHILDREN)

    @router.post("/v1/jobs", status_code=202, summary="Submit a job", openapi_extra=_submit_body())
    async def submit_job(
        request: Request, caller: CallerHere, idempotency_key: Annotated[str | None, Header(json_schema_extra=_KEY)] = None
    ) -> JSONResponse:
        """Queue the optimization of a model. Each file may be sent here or named by the id of an earlier upload.

        The model is not read yet: what its outputs are taken for stands in `outputs` of the job as soon as the first stage has run.
        """
        with deps.uploads_of(caller.tenant) as uploads:
            await run_in_threadpool(check_before_reading, idempotency_key, caller.tenant, deps)
            form = await receive_form(request, uploads.writer, deps.settings.max_upload_bytes, files=ROLES, texts=TEXT_FIELDS)
            await run_in_threadpool(check_still_good, request)
            limiter = few if await run_in_threadpool(takes_a_child, form, uploads, deps) else None
            job, is_new = await to_thread.run_sync(submit, form, idempotency_key, uploads, deps, limiter=limiter)
        request.state.job_id = job.id  # for the audit log
        if is_new:
            hand_over(job.id)
        branches = await run_in_threadpool(deps.store.branches, job.id) if job.new.branches else ()
        return JSONResponse(job_json(job, deps.clock(), (), branches), status_code=202, headers={"Location": f"/v1/jobs/{job.id}"})

    @router.get("/v1/jobs", summary="List jobs")
    def list_jobs(
        caller: CallerHere,
        state: JobState | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        cursor: Annotated[str | None, Query(json_schema_extra={"pattern": "^(before-)?[0-9]{1,18}$"})] = None,
        tenant: str | None = None,
    ) -> JSONResponse:
        """Return short rows of jobs, newest first. `next_cursor` continues the list; null means that this was its end.

        An admin sees the jobs of all tenants, or with `tenant` those of one.
        """
        before = _sequence_from_cursor(cursor)
        seen = tenant_seen(caller, tenant)
        rows = deps.store.rows(states=() if state is None else (state,), limit=limit + 1, before=before, tenant=seen)
        page = rows[:limit]
        next_cursor = f"before-{page[-1].sequence}" if len(rows) > limit else None
        return JSONResponse({"jobs": [row_json(row) for row in page], "next_cursor": next_cursor})

    @router.get("/v1/jobs/{job_id}/log", summary="Read the log of a job", response_class=StreamingResponse)
    def get_log(job_id: str, caller: CallerHere) -> StreamingResponse:
        """Return the job's log so far: when it began and ended, its stages, trials, warnings and versions, and what stages printed."""
        return StreamingResponse(log_lines(deps.store.get(job_id, caller.sees), deps), media_type="text/plain; charset=utf-8")

    @router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job")
    def cancel_job(job_id: str, caller: CallerHere) -> JSONResponse:
        """Cancel the job, for good, even if the server stops now. A finished job stays as it is.

        A job for several types of GPU is cancelled with its branches; a branch alone leaves the others as they are.
        """
        job = deps.store.get(job_id, caller.sees)  # raises for another tenant's
        was = deps.store.cancel(job_id)
        if was is JobState.QUEUED and not job.new.branches:  # a running one removes its folder itself, once its stage has ended
            deps.folders.remove(job_id)
            remove_parents(deps, job_id)
        elif job.new.branches:
            remove_unused(deps, job_id)
        return shown(job_id, caller)

    @router.delete("/v1/jobs/{job_id}", status_code=204, summary="Delete a finished job")
    def delete_job(job_id: str, caller: CallerHere) -> Response:
        """Remove a finished job, with its branches, and the files that only it has. Whoever asks for it later is told so: 410."""
        job = deps.store.get(job_id, caller.sees)  # raises for another tenant's
        if job.new.parent is not None:
            raise UnfinishedError(f"job {job_id}: it is a branch of job {job.new.parent}", fix="Delete that one: its branches go with it.")
        if remove_job(job_id, "it was deleted by a request", deps, forget) is None:
            raise _not_yet(job_id, deps.store.state(job_id))
        return Response(status_code=204)

    return router


def _sequence_from_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    number = cursor.removeprefix("before-")
    if not (number.isascii() and number.isdecimal() and len(number) < _MOST_DIGITS):
        raise InvalidRequestError(f"cursor {cursor!r}: it is none of ours", fix="Use the next_cursor of the last page, or leave it out.")
    return int(number)


def _not_yet(job_id: str, state: JobState) -> UnfinishedError:
    if state.is_finished:
        return UnfinishedError(f"job {job_id}: it is {state}, and its last stage is still ending", fix="Try again in a moment.")
    return UnfinishedError(
        f"job {job_id}: its state is {state}, only a finished job can be deleted", fix="Cancel it first, then delete it."
    )


def _submit_body() -> dict[str, object]:
    file = {"type": "string", "format": "binary"}
    properties = {
        "model": {**file, "description": "An .onnx file, or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz of one with its external data."},
        "calibration": {**file, "description": f"An {formats_in_words()}; the first axis counts samples."},
        "validation": {**file, "description": "Like the calibration set; without it a part of that one is held out."},
        "metric": {
            **file,
            "description": "Your own metric, an .onnx file. Its inputs are called after outputs of the model, `labels`, or `reference_` "
            "and an output (the float model's); its one output is a score from 0 to 1 for each sample, 1 is perfect.",
        },
        **{f"{role}_id": {"type": "string", "description": f"The id of an uploaded {role}, instead of the file."} for role in ROLES},
        "config": json_schema(),
        "assignment": {
            "type": "object",
            "description": "The key `assignment` of the configuration as a part of its own: a job's assignment.json, as text or as a file.",
            "additionalProperties": {"type": "string"},
        },
        "priority": {
            "type": "integer",
            "minimum": -MAX_PRIORITY,
            "maximum": MAX_PRIORITY,
            "description": "Among the caller's own jobs the higher comes first; 0 by default.",
        },
        "webhook": webhook_request.schema(),
    }
    given = [{"oneOf": [{"required": [role]}, {"required": [f"{role}_id"]}]} for role in REQUIRED]
    form = {"type": "object", "properties": properties, "additionalProperties": False, "allOf": given}
    ids_only = {
        "type": "object",
        "properties": {name: properties[name] for name in TEXT_FIELDS},
        "additionalProperties": False,
        "required": [f"{role}_id" for role in REQUIRED],
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": form,
                    "encoding": _IN_JSON,
                },
                "application/json": {"schema": ids_only},
            },
        }
    }


_KEY: dict[str, JsonValue] = {"pattern": "^[ -~]{1,255}$"}  # its form is checked with the request
_MOST_DIGITS = 19
_IN_JSON = {name: {"contentType": "application/json"} for name in ("config", "assignment", "webhook")}
