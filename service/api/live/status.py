"""/v1/jobs/{id}: look at a job. Callers ask it again and again while their job runs, so an answer is to cost little.

The caller is checked and answered on one thread in one go. Every other route has the check as a dependency, which goes to a thread of its
own: what hands a request from one thread to another takes longer than to read the job.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from service.access.caller import Caller
from service.api.access.roles import caller_of
from service.jobs.live.shown import job_json
from service.jobs.resources import Deps
from service.jobs.upkeep.log_text import KnownTails, LogTails

Shown = Callable[[str, Caller], JSONResponse]


def job_shown(deps: Deps) -> Shown:
    """Return what answers with a job, given its id and who asks; it raises where the caller sees no such job.

    Args:
        deps: The server's belongings.
    """
    known = KnownTails(deps)
    tails = known if deps.settings.object_store is None else LogTails(known.of)

    def shown(job_id: str, caller: Caller) -> JSONResponse:
        job = deps.store.get(job_id, caller.sees)
        branches = deps.store.branches(job_id) if job.new.branches else ()
        return JSONResponse(job_json(job, deps.clock(), tails.of(job), branches))

    return shown


def status_router(check: Callable[[Request], None], shown: Shown) -> APIRouter:
    """Return the route; it checks callers itself.

    Args:
        check: What ``role_check`` gave.
        shown: What ``job_shown`` gave.
    """
    router = APIRouter(tags=["jobs"], route_class=_Direct)

    def checked(request: Request, job_id: str) -> JSONResponse:
        check(request)
        return shown(job_id, caller_of(request))

    @router.get("/v1/jobs/{job_id}", summary="Look at a job")
    async def get_job(request: Request, job_id: str) -> JSONResponse:
        """Return the job: its state and progress, its trials, its result or error, and the end of its log."""
        return await run_in_threadpool(checked, request, job_id)

    return router


class _Direct(APIRoute):
    """Calls its endpoint with the request and the names in the path, all of them text: nothing else is read out of the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            response: Response = await self.endpoint(request, **request.path_params)
            return response

        return handle
