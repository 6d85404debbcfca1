"""Status polls at a steady rate beside a running job: how late each answer comes, and what they cost the job."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Polls:
    """What polling showed: the seconds of each answer, from when it was due, and how many a second were really asked."""

    seconds: Sequence[float]
    per_second: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Wall seconds of jobs without polls and with them, in pairs, and the polls of the latter."""

    alone_seconds: Sequence[float]
    polled_seconds: Sequence[float]
    polls: Sequence[Polls]


class Poller:
    """Asks for one path at a steady rate, over a few connections that stay open, until it is closed.

    An answer counts from the time when its request was due, not from when it was sent: a late answer makes the next ones late too.
    """

    def __init__(self, address: str, path: str, per_second: float) -> None:
        self._host, self._path = urlsplit(address).netloc, path
        self._step = _CONNECTIONS / per_second
        self._ended = threading.Event()
        self._found: list[list[float]] = [[] for _ in range(_CONNECTIONS)]
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(_CONNECTIONS)]
        self._started = self._took = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._took = time.perf_counter() - self._started

    def polls(self) -> Polls:
        """Return what was found, after the end.

        Raises:
            RuntimeError: A request failed.
        """
        if self._failed:
            raise RuntimeError(f"a poll failed: {self._failed[0]}") from self._failed[0]
        seconds = [one for found in self._found for one in found]
        return Polls(seconds, len(seconds) / self._took)

    def _run(self, index: int) -> None:
        try:
            self._poll(self._found[index], self._started + self._step * index / _CONNECTIONS)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self._failed.append(exc)

    def _poll(self, found: list[float], due: float) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=60.0)
        try:
            while not self._ended.wait(max(due - time.perf_counter(), 0.0)):
                connection.request("GET", self._path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.client.OK:
                    raise ValueError(f"status {answer.status}")
                found.append(round(time.perf_counter() - due, 4))
                due += self._step
        finally:
            connection.close()


def job_seconds(start: Callable[[int], str], wait: Callable[[str], None], poller: Callable[[str], Poller], pairs: int) -> Paired:
    """Run jobs in turns, without polls and with them.

    Args:
        start: Starts the job of a number, which nothing of another is reused for, and returns its id.
        wait: Waits until a job has ended.
        poller: Makes the one that polls a job's status.
        pairs: Of jobs.
    """
    alone: list[float] = []
    polled: list[float] = []
    polls: list[Polls] = []
    for pair in range(pairs):
        for is_polled in (False, True) if pair % 2 == 0 else (True, False):
            begun = time.perf_counter()
            job = start(2 * pair + is_polled)
            if is_polled:
                polling = poller(job)
                with polling:
                    wait(job)
                polls.append(polling.polls())
            else:
                wait(job)
            (polled if is_polled else alone).append(time.perf_counter() - begun)
    return Paired(alone, polled, polls)
