"""/v1/jobs/{id}/events: the events of a job as they happen, in the form of server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from service.api.access.roles import CallerHere
from service.errors import InvalidRequestError, RemovedError
from service.jobs.live.event_text import EVENT_STREAM, text_from_event
from service.jobs.live.events import Event, EventKind
from service.jobs.live.telling import end_of
from service.jobs.records import Job, JobState
from service.jobs.resources import Deps

HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 2.0  # between two looks at the key of whoever listens


def events_router(deps: Deps, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> APIRouter:
    """Return the route of events.

    Args:
        deps: The server's belongings.
        heartbeat_seconds: After so much silence a comment is sent, so that nobody on the way takes the connection for dead.
    """
    router = APIRouter(tags=["jobs"])

    @router.get("/v1/jobs/{job_id}/events", summary="Follow a job", response_class=StreamingResponse, responses=_ANSWERS)
    async def follow_job(
        request: Request,
        job_id: str,
        caller: CallerHere,
        last_event_id: Annotated[str, Header(json_schema_extra={"pattern": "^[0-9]{1,9}$"})] = "",
        after: Annotated[int, Query(ge=0, le=_MOST_EVENTS)] = 0,
    ) -> Response:
        """Send what happened to the job and what happens to it, until it ends: `text/event-stream`.

        With `Last-Event-ID`, or `after` where a client cannot send headers, it goes on behind that event. After the last event of a
        finished job there is nothing to send: 204, which tells browsers not to ask again.
        """
        number = _number(last_event_id) if last_event_id else after
        job = await run_in_threadpool(deps.store.get, job_id, caller.sees)
        first = await run_in_threadpool(_events_after, deps, job, number)
        if job.state.is_finished and not first:
            return Response(status_code=204)
        stream = _while_good(_stream(deps, job_id, first, number, heartbeat_seconds), request.state.is_still_good)
        return StreamingResponse(stream, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    return router


async def _while_good(stream: AsyncGenerator[bytes, None], is_still_good: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Give what a stream gives, until the caller's key is good no more: whoever asks again is refused then."""
    looked_at = time.monotonic()
    async with aclosing(stream):
        async for data in stream:
            if time.monotonic() - looked_at >= LOOK_SECONDS:
                looked_at = time.monotonic()
                if not await run_in_threadpool(is_still_good):
                    return
            if data:
                yield data


async def _stream(deps: Deps, job_id: str, first: Sequence[Event], number: int, heartbeat_seconds: float) -> AsyncGenerator[bytes, None]:
    events, silent, asked, is_held = first, 0.0, 0.0, False
    yield b"retry: 2000\n\n"
    while not deps.stopping.is_set():  # who listens asks again, and goes on where it was
        if events:
            yield b"".join(map(text_from_event, events))
            if events[-1].kind is EventKind.END:
                return
            number, silent = events[-1].number, 0.0
        else:
            yield b""  # lets the key be looked at
            await asyncio.sleep(_ASK_SECONDS)
            silent, asked = silent + _ASK_SECONDS, asked + _ASK_SECONDS
        if is_held != (deps.store.holds.find(job_id) is not None):
            is_held, silent = not is_held, 0.0
            yield text_from_event(_hold_event(number, deps.clock().timestamp(), is_held=is_held))
        if silent >= heartbeat_seconds:
            yield b": still here\n\n"
            silent = 0.0
        known = deps.store.events.recent_after(job_id, number)
        if known is None:
            known = await run_in_threadpool(deps.store.events.after, job_id, number)
        if known or asked < _CHECK_SECONDS:
            events = known
            continue
        asked = 0.0
        try:
            state = await run_in_threadpool(deps.store.state, job_id)
        except RemovedError:  # deleted meanwhile
            return
        events = await run_in_threadpool(deps.store.events.after, job_id, number)
        if state.is_finished and not events:
            return


def _events_after(deps: Deps, job: Job, number: int) -> tuple[Event, ...]:
    """Return events after a number; at the end of a finished job there is always one that says so."""
    found = deps.store.events.after(job.id, number)
    if found or not job.state.is_finished:
        return found
    last = deps.store.events.after(job.id, max(number - 1, 0), limit=1)
    if last and last[0].kind is EventKind.END:
        return ()
    if number and not last:  # behind the last event, and behind an end that is written nowhere
        return ()
    at = (job.finished_at or job.created_at).timestamp()
    return (Event(number + 1, at, EventKind.END, end_of(job)),)  # of a job that ended before there were events


def _hold_event(number: int, at: float, *, is_held: bool) -> Event:
    """Return what says that a job waits, or goes on. A full disk takes no note of it, so it has no number of its own."""
    state = JobState.ON_HOLD if is_held else JobState.RUNNING
    return Event(number, at, EventKind.STATE, {"state": state.value})


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise InvalidRequestError(f"Last-Event-ID {text!r}: it is none of ours", fix="Send the id of the last event, or leave it out.")
    return int(text)


_ASK_SECONDS = 0.25
_CHECK_SECONDS = 5.0  # how often the job itself is looked at, which tells of a deletion
_MOST_EVENTS = 999_999_999
_MOST_DIGITS = 9
_ANSWERS: dict[int | str, dict[str, object]] = {
    200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}, "description": "The events"},
    204: {"description": "The job has ended, and there is no event behind the one that was named"},
}
