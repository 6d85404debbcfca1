"""/v1/targets, /healthz and /readyz: what this server can do and whether it can do it now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from engine_builder.backends.registry import targets


def targets_router() -> APIRouter:
    """Return the route that lists the targets."""
    router = APIRouter(tags=["targets"])

    @router.get("/v1/targets", summary="List the targets")
    def list_targets() -> JSONResponse:
        """Return what this server can build for, each with its precisions and whether its latency is measured or predicted."""
        return JSONResponse({"targets": targets()})

    return router


def health_router(problems: Callable[[], Mapping[str, str]]) -> APIRouter:
    """Return the two routes for whoever keeps the server running; they need no key.

    Args:
        problems: Gives what keeps the server from its work, by the part that it is wrong with.
    """
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> JSONResponse:  # on the loop's own thread: it must not wait for one that a slow request holds
        """Answer at all."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", summary="Does the server take jobs?")
    def readyz() -> JSONResponse:
        """Answer 200 if the server can do its work, else 503 and what is wrong: with the disk, the database or the worker."""
        found = problems()
        status = "stopping" if "server" in found else "not ready" if found else "ready"
        return JSONResponse({"status": status, "problems": dict(found)}, status_code=503 if found else 200)

    return router
