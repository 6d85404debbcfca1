"""Events of jobs: what happened, in its order, kept in the database, so that a listener can go on where it was.

Each event has a number, from 1 within its job. It is written in the transaction that changes the job, so events and jobs cannot disagree,
also after a crash. What was written lately is kept in memory too: any number of listeners ask there, not the database. Where several
processes share the database, what is in memory may not be all, and listeners ask the database.
"""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from service.database.engine import is_postgres


class EventKind(enum.StrEnum):
    """What an event tells."""

    STATE = "state"  # state
    STAGE = "stage"  # stage, progress
    PROGRESS = "progress"  # stage, progress, eta_seconds
    TRIAL = "trial"  # a trial, as the job shows it
    BEST = "best"  # best: index of the best trial
    LOG = "log"  # line
    RESTARTED = "restarted"  # trials before it count no more
    END = "end"  # state, outcome, speedup, error; nothing follows


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``at`` is the time in seconds since 1970."""

    number: int
    at: float
    kind: EventKind
    data: Mapping[str, object]


class EventLog:
    """The events of all jobs. Safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the table where it is missing."""
        self._engine = engine
        self._is_alone = not is_postgres(engine)
        self._memory = threading.Lock()
        self._recent: OrderedDict[str, deque[Event]] = OrderedDict()  # of the jobs that changed last
        self._latest: dict[str, int] = {}  # number of the last event of each job that was asked for or written
        _METADATA.create_all(engine)

    def append(self, connection: sa.Connection, job_id: str, at: float, kind: EventKind, data: Mapping[str, object]) -> Event:
        """Write an event in a transaction that has written the job, and so holds its row; ``publish`` it after the commit."""
        highest = connection.execute(sa.select(sa.func.max(_EVENTS.c.number)).where(_EVENTS.c.job_id == job_id)).scalar_one()
        event = Event((highest or 0) + 1, at, kind, dict(data))
        row = {"job_id": job_id, "number": event.number, "at": at, "kind": kind.value, "data": event.data}
        connection.execute(sa.insert(_EVENTS).values(row))
        return event

    def publish(self, job_id: str, events: Sequence[Event]) -> None:
        """Let listeners find what is committed."""
        if not events or not self._is_alone:
            return
        with self._memory:
            recent = self._recent.setdefault(job_id, deque(maxlen=_RECENT_EVENTS))
            recent.extend(events)
            self._recent.move_to_end(job_id)
            while len(self._recent) > _RECENT_JOBS:
                self._recent.popitem(last=False)
            self._latest[job_id] = max(self._latest.get(job_id, 0), events[-1].number)

    def recent_after(self, job_id: str, number: int) -> tuple[Event, ...] | None:
        """Return the events after a number, without asking the database; None where only the database knows."""
        with self._memory:
            latest = self._latest.get(job_id) if self._is_alone else None
            if latest is None:
                return None
            if latest <= number:
                return ()
            found = tuple(sorted((event for event in self._recent.get(job_id, ()) if event.number > number), key=_number))
        is_whole = [event.number for event in found] == list(range(number + 1, latest + 1))
        return found if is_whole else None

    def after(self, job_id: str, number: int, *, limit: int = 500) -> tuple[Event, ...]:
        """Return at most ``limit`` events after a number, in their order."""
        query = sa.select(_EVENTS).where(_EVENTS.c.job_id == job_id, _EVENTS.c.number > number)
        with self._engine.connect() as connection:
            found = tuple(map(_event, connection.execute(query.order_by(_EVENTS.c.number).limit(limit)).mappings()))
        if self._is_alone and len(found) < limit:  # so these are all
            with self._memory:
                self._latest[job_id] = max(self._latest.get(job_id, 0), found[-1].number if found else 0)
        return found

    def last(self, connection: sa.Connection, job_id: str, *kinds: EventKind) -> Event | None:
        """Return the last event of these kinds."""
        query = sa.select(_EVENTS).where(_EVENTS.c.job_id == job_id, _EVENTS.c.kind.in_([kind.value for kind in kinds]))
        row = connection.execute(query.order_by(_EVENTS.c.number.desc()).limit(1)).mappings().first()
        return None if row is None else _event(row)

    def count(self, connection: sa.Connection, job_id: str, kind: EventKind) -> int:
        """Return how many events of a kind there are since the job last started anew."""
        restarted = self.last(connection, job_id, EventKind.RESTARTED)
        since = 0 if restarted is None else restarted.number
        of_kind = (_EVENTS.c.job_id == job_id, _EVENTS.c.kind == kind.value, _EVENTS.c.number > since)
        return int(connection.execute(sa.select(sa.func.count()).select_from(_EVENTS).where(*of_kind)).scalar_one())

    def remove(self, connection: sa.Connection, job_id: str) -> None:
        """Remove the events of a job."""
        connection.execute(sa.delete(_EVENTS).where(_EVENTS.c.job_id == job_id))
        with self._memory:
            self._recent.pop(job_id, None)
            self._latest.pop(job_id, None)


def _event(row: sa.RowMapping) -> Event:
    return Event(row["number"], row["at"], EventKind(row["kind"]), row["data"])


def _number(event: Event) -> int:
    return event.number


_RECENT_EVENTS = 256
_RECENT_JOBS = 16
_METADATA = sa.MetaData()
_EVENTS = sa.Table(
    "job_events",
    _METADATA,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
)
