"""Which jobs run in this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class ActiveJobs:
    """Counts the threads of each job: two may meet where one ends as the other begins. Safe to share between threads."""

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        """Know of none yet; ``on_end`` is called whenever one has ended."""
        self._on_end = on_end
        self._ids: Counter[str] = Counter()
        self._broken_off: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def with_job(self, job_id: str) -> Iterator[None]:
        """Count the job in while the block runs."""
        with self._changed:
            self._ids[job_id] += 1
            self._broken_off.discard(job_id)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception):
                with self._changed:
                    self._broken_off.add(job_id)
            raise
        finally:
            with self._changed:
                self._ids -= Counter((job_id,))
                self._changed.notify_all()
            self._on_end()

    def ids(self) -> frozenset[str]:
        """Return the jobs that run now."""
        with self._changed:
            return frozenset(self._ids)

    def broken_off(self) -> frozenset[str]:
        """Return the jobs that were broken off here before they had an outcome, and did not begin again here since."""
        with self._changed:
            return frozenset(self._broken_off - self._ids.keys())

    def forget_broken_off(self, job_ids: Collection[str]) -> None:
        """Count some jobs as broken off no longer: somebody sees to them."""
        with self._changed:
            self._broken_off -= set(job_ids)

    def wait_for_none(self, seconds: float) -> None:
        """Return when none runs, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._ids, seconds)
