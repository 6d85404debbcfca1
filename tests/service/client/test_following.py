from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from service.client.answers import ServerUnavailableError
from service.client.following import looks
from service.errors import MethodNotAllowedError, NotFoundError
from service.jobs.live.event_text import ToldEvent


class FakeClock:
    """A clock that moves by sleeping, and by what events take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        self.slept.append(seconds)


def no_events(number: int) -> Iterator[ToldEvent]:
    if number == 0:
        raise NotFoundError("no such path", fix="none")
    yield ToldEvent(number, "none", {})


def finished(job: int) -> bool:
    return job == 100


def jobs(*states: int | Exception) -> Callable[[], int]:
    left = iter(states)

    def look() -> int:
        state = next(left)
        if isinstance(state, Exception):
            raise state
        return state

    return look


def test_without_events_the_job_is_looked_at_every_half_second() -> None:
    clock = FakeClock()
    assert list(looks(jobs(0, 50, 50, 100), no_events, finished, clock)) == [0, 50, 100]
    assert clock.slept == [0.5] * 3


@pytest.mark.parametrize("error", [MethodNotAllowedError("no", fix="none"), ServerUnavailableError("gone", fix="none")])
def test_a_stream_that_breaks_is_taken_up_behind_its_last_event(error: Exception) -> None:
    clock, asked = FakeClock(), []

    def follow(number: int) -> Iterator[ToldEvent]:
        asked.append(number)
        for told in (ToldEvent(number + 1, "progress", {}), ToldEvent(number + 2, "trial", {})):
            clock.now += 1
            yield told
        raise error

    assert list(looks(jobs(0, 10, 20, 30, 40, 100), follow, finished, clock)) == [0, 10, 20, 30, 40, 100]
    assert asked == [0, 2]


def test_a_flood_of_events_costs_few_looks_and_its_end_one() -> None:
    clock = FakeClock()

    def follow(number: int) -> Iterator[ToldEvent]:
        for index in range(100):
            clock.now += 0.01
            yield ToldEvent(number + 1 + index, "progress", {})
        yield ToldEvent(101, "end", {})

    found = list(looks(jobs(0, 10, 20, 30, 40, 50, 100), follow, finished, clock))
    assert found == [0, 10, 20, 30, 40, 50, 100]
    assert clock.slept == [0.5]  # before the stream


def test_a_server_that_is_gone_is_waited_for_a_minute() -> None:
    gone = ServerUnavailableError("gone", fix="none")
    assert list(looks(jobs(0, gone, gone, 100), no_events, finished, FakeClock())) == [0, 100]
    clock = FakeClock()
    with pytest.raises(ServerUnavailableError):
        list(looks(jobs(0, *[gone] * 500), no_events, finished, clock))
    assert 60 < clock.now < 62


def test_a_server_that_never_answered_is_not_waited_for() -> None:
    with pytest.raises(ServerUnavailableError):
        next(looks(jobs(ServerUnavailableError("gone", fix="none")), no_events, finished, FakeClock()))
