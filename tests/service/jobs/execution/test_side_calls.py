from __future__ import annotations

import threading
import time

import pytest

from service.jobs.execution.side_calls import SideCalls
from tests.faults.server_process import wait_until


def test_a_call_is_done_when_run_returns() -> None:
    done: list[int] = []
    calls = SideCalls(seconds=30)
    assert calls.run(lambda: done.append(1))
    assert calls.run(lambda: done.append(2))
    assert done == [1, 2]


def test_what_a_call_raises_is_raised() -> None:
    calls = SideCalls(seconds=30)

    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        calls.run(fails)
    assert calls.run(lambda: None)


def test_a_call_without_an_answer_holds_nobody_up_and_is_the_only_one() -> None:
    answered = threading.Event()
    done: list[str] = []

    def waits() -> None:
        answered.wait(60)

    calls = SideCalls(seconds=0.01)
    began = time.monotonic()
    assert calls.run(waits)
    assert not calls.run(lambda: done.append("dropped"))
    assert time.monotonic() - began < 30
    answered.set()
    wait_until(lambda: calls.run(lambda: done.append("later")), 30)
    wait_until(lambda: bool(done), 30)
    assert done == ["later"]


def test_a_late_error_is_raised_by_the_next_call() -> None:
    answered = threading.Event()

    def fails() -> None:
        answered.wait(60)
        raise ZeroDivisionError

    calls = SideCalls(seconds=0.01)
    assert calls.run(fails)
    answered.set()

    def next_call_raises() -> bool:
        try:
            calls.run(lambda: None)
        except ZeroDivisionError:
            return True
        return False

    wait_until(next_call_raises, 30)
