"""Which answers the audit log notes, and what it notes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import MappingProxyType

from starlette.types import Scope

from service.access.audit import AuditEntry, AuditLog, time_text
from service.api.access.gate import Admitted

ACTIONS = MappingProxyType(
    {
        ("POST", "/v1/files"): "upload",
        ("DELETE", "/v1/files/{file_id}"): "delete upload",
        ("POST", "/v1/jobs"): "submit",
        ("POST", "/v1/jobs/{job_id}/cancel"): "cancel",
        ("DELETE", "/v1/jobs/{job_id}"): "delete",
        ("GET", "/v1/jobs/{job_id}/log"): "download",
        ("GET", "/v1/jobs/{job_id}/engine"): "download",
        ("GET", "/v1/jobs/{job_id}/engines/{fingerprint}"): "download",
        ("GET", "/v1/jobs/{job_id}/artifacts/{name:path}"): "download",
        ("GET", "/v1/audit"): "read the audit log",
        ("POST", "/v1/keys/{key_id}/revoke"): "key revoked",
    }
)
REFUSED = frozenset({401, 403, 429})
_NOT_FOUND = 404
_OF_JOBS = "/v1/jobs/{job_id}"


def auditor(log: AuditLog, clock: Callable[[], datetime]) -> Callable[[Scope, int], None]:
    """Return what notes an answer: that of a request which changes or hands out something, or which is refused.

    Asking for a job that is not there, or is another tenant's, is noted too: whoever tries ids leaves a trace.

    Args:
        log: Takes the entries.
        clock: The present, in UTC.
    """

    def note(scope: Scope, status: int) -> None:
        method, path = scope["method"], getattr(scope.get("route"), "path", None)
        action = ACTIONS.get((method, path)) if isinstance(path, str) else None
        if status in REFUSED:
            action = "refused"
        elif status == _NOT_FOUND and isinstance(path, str) and path.startswith(_OF_JOBS):
            action = "unknown job"
        if action is None:
            return
        state, client = scope.get("state", {}), scope.get("client")
        admitted = state.get("admitted")
        caller = admitted.caller if isinstance(admitted, Admitted) else None
        job = state.get("job_id") or scope.get("path_params", {}).get("job_id")
        log.write(
            AuditEntry(
                time=time_text(clock()),
                action=action,
                key=None if caller is None else caller.key_id,
                tenant=None if caller is None else caller.tenant,
                route=f"{method} {path or 'none'}",
                job=None if job is None else str(job),
                status=status,
                address=None if client is None else str(client[0]),
                about=state.get("about"),
            )
        )

    return note
