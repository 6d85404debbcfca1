from __future__ import annotations

import os
import threading
import time

import pytest

from service.jobs.upkeep.periodic import Periodic


def test_work_goes_on_after_it_failed_and_ends_with_the_server(caplog: pytest.LogCaptureFixture) -> None:
    stopping, calls = threading.Event(), []

    def work() -> None:
        calls.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        if len(calls) == 1:
            raise ZeroDivisionError

    periodic = Periodic("tidying", 0.01, work, stopping)
    periodic.start()
    deadline = time.monotonic() + 10
    while len(calls) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopping.set()
    periodic.join()
    assert "tidying failed" in caplog.text
    ended = len(calls)
    time.sleep(0.05)
    assert len(calls) == ended
    assert set(calls) == {max(10, os.getpriority(os.PRIO_PROCESS, 0))}


def test_one_that_never_began_is_not_waited_for() -> None:
    Periodic("tidying", 1, lambda: None, threading.Event()).join()
