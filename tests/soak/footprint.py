"""What a place takes of the machine at one moment, and whether that grows as jobs come and go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.soak.places import Place


@dataclass(frozen=True)
class Footprint:
    """One look.

    Attributes:
        seconds: Since the beginning.
        finished: Jobs that had ended and been collected by then.
        memory_bytes: Of each process that lives as long as the place does: pages that it shares count by its share.
        descriptors: That each of them has open.
        threads: Of each of them.
        disk_bytes: Of all files.
        rows: Of each table.
    """

    seconds: float
    finished: int
    memory_bytes: Mapping[str, int]
    descriptors: Mapping[str, int]
    threads: Mapping[str, int]
    disk_bytes: int
    rows: Mapping[str, int]


def footprint(place: Place, seconds: float, finished: int) -> Footprint:
    """Look at a place whose processes are all there."""
    processes = place.processes()
    return Footprint(
        seconds,
        finished,
        {name: int(one.memory_full_info().pss) for name, one in processes.items()},
        {name: one.num_fds() for name, one in processes.items()},
        {name: one.num_threads() for name, one in processes.items()},
        sum(_size(Path(where, name)) for folder in place.folders() for where, _, names in os.walk(folder) for name in names),
        place.rows(),
    )


def growth(finished: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Return how much of something came with each job, and twice the standard error of that, by least squares.

    Args:
        finished: How many jobs had ended at each look.
        values: What was found then.
    """
    if len(finished) < _FEWEST:
        return 0.0, float("inf")
    jobs, found = np.asarray(finished, float), np.asarray(values, float)
    if np.ptp(jobs) == 0:
        return 0.0, float("inf")
    slope, at_zero = np.polyfit(jobs, found, 1)
    left = found - slope * jobs - at_zero
    error = np.sqrt((left**2).sum() / (len(jobs) - 2) / ((jobs - jobs.mean()) ** 2).sum())
    return float(slope), 2 * float(error)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # it went as we looked
        return 0


_FEWEST = 3  # looks, below which nothing is said
