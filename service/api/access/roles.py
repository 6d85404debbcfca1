"""Which role each route needs: the one table. A route that is not in it is refused to everybody, and a test fails."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated

from fastapi import Depends, Request

from service.access.caller import Caller, Role
from service.api.access.gate import Gate, check_role
from service.errors import ForbiddenError, UnauthorizedError

ROLES = MappingProxyType(
    {
        ("POST", "/v1/files"): Role.SUBMIT,
        ("GET", "/v1/files/{file_id}"): Role.SUBMIT,
        ("POST", "/v1/files/{file_id}/preflight"): Role.SUBMIT,
        ("DELETE", "/v1/files/{file_id}"): Role.SUBMIT,
        ("POST", "/v1/jobs"): Role.SUBMIT,
        ("GET", "/v1/jobs"): Role.READ,
        ("GET", "/v1/jobs/{job_id}"): Role.READ,
        ("GET", "/v1/jobs/{job_id}/events"): Role.READ,
        ("GET", "/v1/jobs/{job_id}/log"): Role.READ,
        ("POST", "/v1/jobs/{job_id}/cancel"): Role.SUBMIT,
        ("DELETE", "/v1/jobs/{job_id}"): Role.SUBMIT,
        ("GET", "/v1/jobs/{job_id}/engine"): Role.READ,
        ("GET", "/v1/jobs/{job_id}/engines/{fingerprint}"): Role.READ,
        ("GET", "/v1/jobs/{job_id}/artifacts"): Role.READ,
        ("GET", "/v1/jobs/{job_id}/artifacts/{name:path}"): Role.READ,
        ("GET", "/v1/targets"): Role.READ,
        ("GET", "/v1/usage"): Role.READ,
        ("GET", "/v1/audit"): Role.ADMIN,
        ("GET", "/v1/keys"): Role.ADMIN,
        ("POST", "/v1/keys/{key_id}/revoke"): Role.ADMIN,
        ("GET", "/metrics"): Role.ADMIN,
        ("GET", "/openapi.json"): Role.READ,
        # These need no key: who keeps the server running has none, and the pages ask for one.
        ("GET", "/healthz"): None,
        ("GET", "/readyz"): None,
        ("GET", "/"): None,
        ("GET", "/docs"): None,
        ("GET", "/favicon.ico"): None,
        ("GET", "/web/{name:path}"): None,
    }
)


def role_check(gate: Gate) -> Callable[[Request], None]:
    """Return the dependency of every route that needs a role; it notes the caller for whoever answers."""

    def check(request: Request) -> None:
        request.state.admitted = admitted = gate.admit(request)
        request.state.is_still_good = lambda: gate.is_still_good(admitted)
        needed = ROLES.get((request.method, request.scope["route"].path))
        if needed is None:
            raise ForbiddenError("this route states no role, so nobody may use it", fix="Report it: it is a fault of the service.")
        check_role(admitted.caller, needed)

    return check


def check_still_good(request: Request) -> None:
    """Look at the key of a request again, whose body took its time.

    Raises:
        UnauthorizedError: It is good no more.
    """
    if not request.state.is_still_good():
        raise UnauthorizedError("Authorization: the key is good no more", fix="Ask the operator for another key.")


def caller_of(request: Request) -> Caller:
    """Return who sent a request that was let in."""
    caller: Caller = request.state.admitted.caller
    return caller


async def _caller(request: Request) -> Caller:  # on the loop's own thread, which takes no time
    return caller_of(request)


def tenant_seen(caller: Caller, asked: str | None) -> str | None:
    """Return the tenant whose jobs a list is to show: the one that is asked for, else all that the caller sees (None: of any).

    Raises:
        ForbiddenError: It is another's, and the caller is no admin.
    """
    if asked is None:
        return caller.sees
    if asked != caller.tenant:
        check_role(caller, Role.ADMIN)
    return asked


CallerHere = Annotated[Caller, Depends(_caller)]
