"""/v1/files: uploads that jobs refer to later."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.api.access.roles import CallerHere
from service.errors import NotFoundError
from service.jobs.resources import Deps
from service.jobs.uploads import FILE_FIELD, receive_file


def files_router(deps: Deps) -> APIRouter:
    """Return the routes of uploads."""
    router = APIRouter(tags=["files"])

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

    @router.delete("/v1/files/{file_id}", status_code=204, summary="Delete an upload")
    def delete_file(file_id: str, caller: CallerHere) -> Response:
        """Remove an upload of the caller's tenant. Jobs that were submitted with it go on, and what jobs left stays."""
        uploads, sha256 = deps.uploads_of(caller.tenant), file_id.removeprefix("sha256:")
        if not deps.store.owners.uploaded(caller.tenant, sha256):
            raise _not_here(file_id)
        uploads.remove([sha256], deps.filing)
        return Response(status_code=204)

    return router


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
