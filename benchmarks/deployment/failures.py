"""What goes wrong in a simulated deployment, and when: drawn before it begins."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Kind(enum.StrEnum):
    """A kind of failure."""

    KILL = "process killed"  # it starts again after a while
    CUT = "process cut off"  # from the database; it works on until it counts its lease as gone
    DATABASE = "database away"
    STORE = "store away"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure: its kind, when it begins, how long it lasts in seconds, and the process that it meets, if it meets one."""

    kind: Kind
    at: float
    seconds: float
    process: str | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """How much goes wrong.

    Attributes:
        process_hours: Between two failures of one process, on average.
        database: How often the database goes away in the whole time.
        store: How often the store does.
    """

    process_hours: float = 5.0
    database: int = 2
    store: int = 2


def failures(rates: Rates, processes: Sequence[str], span: float, rng: np.random.Generator) -> tuple[Failure, ...]:
    """Return the failures of some seconds, by their moment.

    Two of three failures of a process are kills, after which it is back in 20 to 200 seconds; the third cuts it off for 1 to 60 seconds,
    which is less or more than a lease. Database and store are away for 2 to 120 seconds.

    Args:
        rates: How much goes wrong.
        processes: Names of those that may fail.
        span: Seconds.
        rng: Draws all of it.
    """
    found: list[Failure] = []
    count = int(rng.poisson(len(processes) * span / (rates.process_hours * 3600)))
    for _ in range(count):
        name = processes[int(rng.integers(len(processes)))]
        moment = float(rng.uniform(0.0, span))
        if rng.uniform() < 2 / 3:
            found.append(Failure(Kind.KILL, moment, float(rng.uniform(20, 200)), name))
        else:
            found.append(Failure(Kind.CUT, moment, float(rng.uniform(1, 60)), name))
    for kind, times in ((Kind.DATABASE, rates.database), (Kind.STORE, rates.store)):
        for part in range(times):  # spread over the time, so that each meets running jobs
            moment = span * (part + float(rng.uniform(0.2, 0.8))) / times
            found.append(Failure(kind, moment, float(rng.uniform(2, 120))))
    return tuple(sorted(found, key=lambda one: one.at))
