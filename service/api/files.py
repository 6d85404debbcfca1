"""/v1/files: uploads that jobs refer to later."""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from service.api.access.roles import CallerHere
from service.errors import NotFoundError
from service.jobs.execution.given_model import preflight_of
from service.jobs.resources import Deps
from service.jobs.uploads import FILE_FIELD, receive_file

MAX_PREFLIGHTS = 1  # at a time; further ones wait, and hold up no other request
MAX_SAMPLES = 10**9
CLIENT_GONE = 499  # in logs alone: nobody reads it


def files_router(deps: Deps) -> APIRouter:
    """Return the routes of uploads."""
    router = APIRouter(tags=["files"])
    turns, threads = CapacityLimiter(MAX_PREFLIGHTS), CapacityLimiter(MAX_PREFLIGHTS)

    @router.post("/v1/files", status_code=201, summary="Upload a file", openapi_extra=_UPLOAD_BODY)
    async def upload_file(request: Request, caller: CallerHere) -> JSONResponse:
        """Store a file, sent as the body or as the form field `file`. The same bytes give the same id.

        A `Content-Digest: sha-256=:...:` (RFC 9530) of a file that is the body is compared with what arrives.
        """
        with deps.uploads_of(caller.tenant) as uploads:
            stored = await receive_file(request, uploads.writer, deps.settings.max_upload_bytes)
        return JSONResponse({"id": stored.id, "size_bytes": stored.size_bytes}, status_code=201)

    @router.get("/v1/files/{file_id}", summary="Is a file here?")
    def get_file(file_id: str, caller: CallerHere) -> JSONResponse:
        """Return the id and the size of a file of the caller's tenant, which need not be sent again."""
        with deps.uploads_of(caller.tenant) as uploads:
            stored = uploads.find(file_id.removeprefix("sha256:"))
        if stored is None:
            raise _not_here(file_id)
        deps.artifacts.mark_upload(stored.sha256)
        return JSONResponse({"id": stored.id, "size_bytes": stored.size_bytes})

    @router.post("/v1/files/{file_id}/preflight", summary="What is known of a model")
    async def preflight_file(
        request: Request, file_id: str, caller: CallerHere, samples: Annotated[int, Query(ge=1, le=MAX_SAMPLES)] = 1000
    ) -> Response:
        """Read an uploaded model and return what can be told of it before a job.

        That is its inputs and outputs, its layers, for how many of them each target has which precision, and about how many seconds a job
        for `onnxruntime-cpu` takes on this server with that many `samples`, at least and at most, while it does nothing else. Which
        precisions pay, and what is inside a budget, only a job finds out.
        """
        with deps.uploads_of(caller.tenant) as uploads:
            stored = await run_in_threadpool(uploads.find, file_id.removeprefix("sha256:"))
            if stored is None:
                raise _not_here(file_id)
            await run_in_threadpool(deps.artifacts.mark_upload, stored.sha256)
            async with turns:
                if await _is_gone(request):  # nobody waits for those who left while they waited
                    return Response(status_code=CLIENT_GONE)
                return JSONResponse(await to_thread.run_sync(preflight_of, stored, samples, deps, limiter=threads))

    @router.delete("/v1/files/{file_id}", status_code=204, summary="Delete an upload")
    def delete_file(file_id: str, caller: CallerHere) -> Response:
        """Remove an upload of the caller's tenant. Jobs that were submitted with it go on, and what jobs left stays."""
        uploads, sha256 = deps.uploads_of(caller.tenant), file_id.removeprefix("sha256:")
        if not deps.store.owners.uploaded(caller.tenant, sha256):
            raise _not_here(file_id)
        uploads.remove([sha256], deps.filing)
        return Response(status_code=204)

    return router


async def _is_gone(request: Request) -> bool:
    """Return whether a caller who sends no body has hung up: what comes first is the end of the body, and only then word of that."""
    return await request.is_disconnected() or await request.is_disconnected()


def _not_here(file_id: str) -> NotFoundError:
    return NotFoundError(f"file {file_id!r}: it is not here", fix="Send it with POST /v1/files.")


_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {FILE_FIELD: _BINARY}, "required": [FILE_FIELD], "additionalProperties": False}
_UPLOAD_BODY: dict[str, object] = {
    "requestBody": {
        "required": False,  # an empty file is one
        "content": {"application/octet-stream": {"schema": _BINARY}, "multipart/form-data": {"schema": _FORM}},
    }
}
