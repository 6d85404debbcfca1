"""Times plain forward passes in turns with other work, in a process of its own so that its memory is none of that work's.

A machine's speed changes from minute to minute; passes that are timed between the parts of the other work see the same speeds.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_builder.backends.onnxruntime.cpu import session_options

RUNS = 3  # of one batch, after one to warm up; the median counts


class PlainForwards:
    """Passes of one model, timed whenever it is asked."""

    def __init__(self, connection: Connection) -> None:
        """Take the connection to the process that runs them; ``plain_forwards`` makes both."""
        self._connection = connection
        self._took: list[float] = []

    def time(self, batch: Mapping[str, NDArray[np.generic]]) -> None:
        """Run one batch and note the CPU seconds of a sample."""
        self._connection.send(dict(batch))
        samples = len(next(iter(batch.values())))
        self._took.append(float(self._connection.recv()) / samples)

    @property
    def sample_seconds(self) -> float:
        """CPU seconds of one sample, the mean over the batches that were timed: the other work is added up over them, too."""
        return statistics.fmean(self._took)


@contextmanager
def plain_forwards(path: Path) -> Iterator[PlainForwards]:
    """Yield what times forward passes of a model, on one thread."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(str(path), theirs))
    process.start()
    try:
        yield PlainForwards(ours)
    finally:
        ours.send(None)
        process.join()


def _serve(path: str, connection: Connection) -> None:
    session = onnxruntime.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])
    while (batch := connection.recv()) is not None:
        took = []
        for _ in range(1 + RUNS):
            start = time.process_time()
            session.run(None, batch)
            took.append(time.process_time() - start)
        connection.send(statistics.median(took[1:]))
