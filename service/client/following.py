"""Watches a job by the server's events: they tell when to look; where there are none, it is looked at every half a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from service.client.answers import ServerUnavailableError
from service.errors import ServiceError
from service.jobs.live.event_text import ToldEvent

POLL_SECONDS = 0.5
LOOK_SECONDS = 0.2  # between two looks at a job while its events come
RECONNECT_SECONDS = 60.0
T = TypeVar("T")


class Clock(Protocol):
    """Time, for waiting between two looks at a job."""

    def monotonic(self) -> float:
        """Return seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


def looks(
    look: Callable[[], T], follow: Callable[[int], Iterator[ToldEvent]], is_finished: Callable[[T], bool], clock: Clock
) -> Iterator[T]:
    """Yield a job now and whenever it changed, until it is finished; a server that restarts meanwhile is waited for, up to a minute.

    Args:
        look: Returns the job.
        follow: Gives its events behind a number, as they happen.
        is_finished: Whether nothing more will happen to it.
        clock: Time.
    """
    last: T | None = None
    events: Iterator[ToldEvent] = iter(())
    answered, number = clock.monotonic(), 0
    while True:
        try:
            job = look()
            answered = clock.monotonic()
        except ServerUnavailableError:
            if last is None or clock.monotonic() - answered > RECONNECT_SECONDS:
                raise
        else:
            if job != last:
                last = job
                yield job
            if is_finished(job):
                return
        told = _news(events, answered, clock)
        if told is None:  # no stream yet, or it broke
            clock.sleep(POLL_SECONDS)
            events = follow(number)
        else:
            number = told.number


def _news(events: Iterator[ToldEvent], looked_at: float, clock: Clock) -> ToldEvent | None:
    """Wait for an event that is worth a look at the job; None where there is no stream of them, or it ends."""
    try:
        for told in events:
            if told.kind in {"end", "state"} or clock.monotonic() - looked_at >= LOOK_SECONDS:
                return told
    except (ServerUnavailableError, ServiceError):  # an older server has none; what else it is, the next look finds out
        return None
    return None
