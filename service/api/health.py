"""/v1/targets, /healthz and /readyz: what this server can do and whether it can do it now."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from engine_builder.backends.registry import targets
from service.jobs.faults.health import is_passing, storage_problem
from service.jobs.resources import Deps


def targets_router() -> APIRouter:
    """Return the route that lists the targets."""
    router = APIRouter(tags=["targets"])

    @router.get("/v1/targets", summary="List the targets")
    def list_targets() -> JSONResponse:
        """Return what this server can build for, each with its precisions and whether its latency is measured or predicted."""
        return JSONResponse({"targets": targets()})

    return router


def health_router(deps: Deps) -> APIRouter:
    """Return the two routes for whoever keeps the server running; they need no key."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> JSONResponse:  # on the loop's own thread: it must not wait for one that a slow request holds
        """Answer at all."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", summary="Does the server take jobs?")
    def readyz() -> JSONResponse:
        """Answer 200 if the server takes jobs, else 503 with the reason."""
        if deps.stopping.is_set():
            return JSONResponse({"status": "stopping"}, status_code=503)
        problem = storage_problem(deps, for_uploads=True)
        if problem is None or is_passing(problem):
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not_ready", "reason": problem.detail, "fix": problem.fix}, status_code=503)

    return router
