"""/v1/usage and /v1/audit: what a tenant has taken of what it may, and what was done."""

from __future__ import annotations

import dataclasses
import itertools
import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from service.access.limits import usage_json
from service.api.access.roles import CallerHere, tenant_seen
from service.errors import InvalidRequestError
from service.jobs.resources import Deps

MAX_ENTRIES = 1000


def usage_router(deps: Deps) -> APIRouter:
    """Return the routes of usage and audit."""
    router = APIRouter(tags=["access"])

    @router.get("/v1/usage", summary="What is used of the quotas")
    def get_usage(caller: CallerHere, tenant: str | None = None) -> JSONResponse:
        """Return the caller's key, role and tenant, and of each quota what is used, the limit, and when it counts from 0 again.

        With `tenant` an admin asks for that of another tenant.
        """
        named = tenant_seen(caller, tenant) or caller.tenant
        limits, used = deps.store.admission.usage(named)
        return JSONResponse(
            {
                "key": {"id": caller.key_id, "name": caller.name, "role": caller.role.value},
                "tenant": named,
                "quotas": usage_json(limits, used, deps.clock()),
            }
        )

    @router.get("/v1/audit", summary="Read the audit log")
    def get_audit(
        since: Annotated[str, Query(json_schema_extra={"format": "date-time"})] = "1970-01-01T00:00:00Z",
        tenant: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 100,
    ) -> JSONResponse:
        """Return what was done and refused, the newest first: of one `tenant`, from `since` on (2026-11-29T10:00:00Z). For admins."""
        entries = deps.audit.entries(since=_moment(since), tenant=tenant)
        return JSONResponse({"entries": [dataclasses.asdict(entry) for entry in itertools.islice(entries, limit)]})

    return router


def _moment(text: str) -> datetime:
    """Return the moment that a text of RFC 3339 names, to a second: a leap second counts as the one before it."""
    try:
        found = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59", text.upper()))
    except ValueError as exc:
        raise InvalidRequestError(f"since {text!r}: it is no time", fix="Give one such as 2026-11-29T10:00:00Z.") from exc
    try:
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:  # of the first or the last day that there is, elsewhere
        return found.replace(tzinfo=UTC)


_LEAP_SECOND = re.compile(r"(T[0-9]{2}:[0-9]{2}):60")
