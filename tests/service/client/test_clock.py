"""What waits for a job by a clock relies on, of the system's and of the tests' own."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from service.client.following import Clock
from tests.service.client.test_client import FakeClock


class ClockContract(ABC):
    """What the client relies on of a clock."""

    @abstractmethod
    def clock(self) -> Clock:
        """Return it."""

    def test_sleeping_takes_as_long_as_was_asked_for(self) -> None:
        clock = self.clock()
        start = clock.monotonic()
        clock.sleep(0.01)
        assert clock.monotonic() - start >= 0.01

    def test_time_never_goes_back(self) -> None:
        clock = self.clock()
        read = [clock.monotonic() for _ in range(100)]
        assert read == sorted(read)


class TestTime(ClockContract):
    def clock(self) -> Clock:
        return time


class TestFakeClock(ClockContract):
    def clock(self) -> Clock:
        return FakeClock()
