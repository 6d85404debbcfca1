"""/v1/keys: which keys there are, and revoking one from afar.

Keys are made and given new secrets on the server's machine alone (``keys create``): so nobody makes further keys with a stolen one.
"""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.access.audit import time_text
from service.access.keys import AccessKey
from service.jobs.resources import Deps


def keys_router(deps: Deps) -> APIRouter:
    """Return the routes of keys."""
    router = APIRouter(tags=["access"])

    def shown(key: AccessKey) -> dict[str, object]:
        return {
            "id": key.id,
            "role": key.role.value,
            "tenant": key.tenant,
            "name": key.name,
            "state": key.state(deps.store.keys.now()),
            "created_at": time_text(key.created_at),
            "expires_at": _time_or_none(key.expires_at),
            "revoked_at": _time_or_none(key.revoked_at),
            "used_at": _time_or_none(key.used_at),
        }

    @router.get("/v1/keys", summary="List the keys")
    def list_keys() -> JSONResponse:
        """Return all keys without their secrets, the oldest first. For admins."""
        return JSONResponse({"keys": [shown(key) for key in deps.store.keys.list()]})

    @router.post("/v1/keys/{key_id}/revoke", summary="Revoke a key")
    def revoke_key(request: Request, key_id: str) -> JSONResponse:
        """Revoke a key for good, from its next request on. For admins."""
        key = deps.store.keys.revoke(key_id)
        request.state.about = f"key {key.id}, role {key.role}, tenant {key.tenant}"  # for the audit log
        return JSONResponse(shown(key))

    return router


def _time_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(moment)
