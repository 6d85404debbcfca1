"""The application: routes, errors as problem objects, and a server that stops in seconds without losing a job."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from calibration.plain_text import folders_to_hide
from calibration.process.memory import keep_little_free_memory, set_start_up_apart
from service import __version__
from service.api.access.audited import auditor
from service.api.access.gate import Gate
from service.api.access.keys import keys_router
from service.api.access.roles import role_check
from service.api.access.usage import usage_router
from service.api.artifacts import artifacts_router
from service.api.every_answer import Application, RequestCounts
from service.api.files import files_router
from service.api.health import health_router, targets_router
from service.api.jobs import jobs_router
from service.api.listening import check_address
from service.api.live.event_stream import events_router
from service.api.live.metrics import metrics_router
from service.api.live.readiness import Readiness
from service.api.live.status import job_shown, status_router
from service.api.log_lines import log_plain_lines
from service.api.problems import add_problem_handlers
from service.database.role import Role
from service.jobs.resources import Deps, open_deps
from service.jobs.runner import Runner
from service.jobs.upkeep.periodic import Periodic, by_one
from service.jobs.upkeep.retention import collect_old
from service.jobs.upkeep.webhook_delivery import any_due, deliver_due, keep_encrypted, poster
from service.settings import Settings, check_guarded
from service.web.router import description_router, web_router


def create_app(settings: Settings, deps: Deps) -> FastAPI:
    """Return the application. It starts the workflow engine when it starts to serve, and stops it when it ends.

    Args:
        settings: The settings.
        deps: The server's belongings; whoever opened them closes them.
    """
    runner = Runner(deps)
    post = poster(any_address=settings.webhook_addresses == "any")
    upkeeps = [
        Periodic(
            "webhooks", _WEBHOOKS_SECONDS, by_one(deps, "webhooks", lambda: deliver_due(deps, post), lambda: any_due(deps)), deps.stopping
        ),
        Periodic("encryption", _ENCRYPTION_SECONDS, by_one(deps, "encryption", lambda: keep_encrypted(deps)), deps.stopping),
        Periodic("retention", _RETENTION_SECONDS, by_one(deps, "retention", lambda: collect_old(deps, runner.forget)), deps.stopping),
    ]
    if deps.files.collect is not None:
        upkeeps.append(Periodic("objects", _RETENTION_SECONDS, by_one(deps, "objects", deps.files.collect), deps.stopping))
    if deps.membership is not None:
        upkeeps.append(Periodic("holds", _HOLDS_SECONDS, deps.store.holds.refresh, deps.stopping))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(runner.start)
            for upkeep in upkeeps:
                upkeep.start()
            yield
        finally:
            deps.stopping.set()
            for upkeep in upkeeps:
                await run_in_threadpool(upkeep.join)
            await run_in_threadpool(runner.stop)

    app = Application(
        title="ONNX-TRT Optimizer",
        version=__version__,
        description="Upload an ONNX model, calibration data and an accuracy budget; download the fastest engine inside the budget.",
        lifespan=lifespan,
        docs_url=None,  # their scripts would come from elsewhere: service.web has /docs
        redoc_url=None,
        openapi_url=None,
    )
    app.counts = RequestCounts()
    app.audit = auditor(deps.audit, deps.clock)
    readiness = Readiness(deps)
    check = role_check(Gate(settings, deps.store.keys))
    guarded = [Depends(check)]
    shown = job_shown(deps)
    jobs = jobs_router(deps, runner.hand_over, runner.forget, shown)
    app.include_router(status_router(check, shown), responses=_PROBLEM_RESPONSES)  # first: routes are tried in turn, this is asked most
    for router in (
        files_router(deps),
        jobs,
        events_router(deps),
        artifacts_router(deps),
        targets_router(),
        usage_router(deps),
        keys_router(deps),
    ):
        app.include_router(router, dependencies=guarded, responses=_PROBLEM_RESPONSES)
    app.include_router(metrics_router(deps, app.counts, readiness), dependencies=guarded)
    app.include_router(health_router(readiness.problems))
    app.include_router(web_router())
    app.include_router(description_router(app.openapi), dependencies=guarded)
    add_problem_handlers(app, folders_to_hide(settings.data_dir, settings.files_dir))
    return app


def serve(settings: Settings, deps: Deps | None = None, *, rebuild: bool = False, role: Role = Role.ALL) -> None:
    """Serve until SIGTERM or SIGINT; a running job goes on at the next start.

    Args:
        settings: The settings.
        deps: The server's belongings, which are closed at the end; opened from the settings if absent.
        rebuild: As for ``open_deps``.
        role: As for ``open_deps``.

    Raises:
        ProcessNameInUseError: Another process works under this one's name.
        DataFolderInUseError: Another server works in the data folder.
        DamagedDatabaseError: The database is damaged.
        InvalidConfigError: The address cannot be listened on, or the data folder cannot be used.
    """
    keep_little_free_memory()  # before there are threads
    log_plain_lines(folders_to_hide(settings.data_dir, settings.files_dir), settings.log_format)
    if role is not Role.ALL:
        settings.require_shared()
    check_address(settings.host, settings.port)
    deps = deps or open_deps(settings, rebuild=rebuild, role=role)
    try:
        check_guarded(settings, has_keys=deps.store.keys.has_any())
        config = uvicorn.Config(
            create_app(settings, deps),
            host=settings.host,
            port=settings.port,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            server_header=False,
            access_log=False,  # callers poll
            log_config=None,  # its lines go where ours do
        )
        _Server(config, deps).run()
    finally:
        deps.close()


class _Server(uvicorn.Server):
    """Tells the running job of the stop at once, not only when the last connection has closed; settles down once it listens."""

    def __init__(self, config: uvicorn.Config, deps: Deps) -> None:
        super().__init__(config)
        self._deps = deps

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await run_in_threadpool(self._deps.warm_parent.start)
        set_start_up_apart()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._deps.stopping.set()
        super().handle_exit(sig, frame)


_GRACE_SECONDS = 3
_WEBHOOKS_SECONDS = 1.0
_ENCRYPTION_SECONDS = 60.0
_RETENTION_SECONDS = 60.0
_HOLDS_SECONDS = 1.0
_PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}}
    | {"detail": {"type": "string"}, "fix": {"type": "string"}},
}
_PROBLEM_RESPONSES: dict[int | str, dict[str, object]] = {
    "4XX": {"description": "Why not, and what to do about it", "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA}}}
}
