"""A job: its states, the moves between them, and what is kept of it.

queued ──> running ──> succeeded
  │  │        ├──────> failed
  │  └────────┼──────> cancelled
  └───────────┴──────> failed

A job for several types of GPU is run by its branches, a job for each type, and its row follows theirs: see ``branches.following``.

A queued or running job whose disk or database cannot be used is shown as on hold until it goes on; see ``storage.holds``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine_builder.workspace.workspace import FileRef
from service.access.caller import DEFAULT_TENANT
from service.errors import IllegalMoveError
from service.jobs.storage.holds import Hold


class JobState(enum.StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    ON_HOLD = "on_hold"  # never written: the row keeps what the job was before
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        """Whether no move leads out of this state."""
        return not MOVES[self]


MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.ON_HOLD: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def check_move(old: JobState, new: JobState) -> None:
    """Accept a legal move.

    Raises:
        IllegalMoveError: The state ``new`` cannot follow ``old``.
    """
    if new not in MOVES[old]:
        allowed = ", ".join(sorted(MOVES[old])) or "nothing, it is finished"
        raise IllegalMoveError(f"job: asked to move from {old} to {new}, allowed from {old}: {allowed}", fix="Read the job's state first.")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the artifact store.

    Attributes:
        sha256: Digest of its bytes, lower-case hexadecimal; also its key.
        size_bytes: Its length.
    """

    sha256: str
    size_bytes: int

    @property
    def id(self) -> str:
        """The id that callers use."""
        return f"sha256:{self.sha256}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to tell that a job has ended.

    Attributes:
        url: Takes the message.
        secret: The key that the message is signed with.
    """

    url: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is known of a job when it is submitted.

    Attributes:
        id: Chosen by the service; also the id of its workflow.
        config: The effective configuration, JSON.
        inputs: ``model``, ``calibration`` and perhaps ``validation`` and ``metric``, in the job's workspace.
        idempotency_key: What the caller calls the request, if it does; another tenant's may be the same.
        request_sha256: Digest of everything that the caller asked for.
        tenant: Whose job it is.
        priority: Among the jobs of its tenant the higher comes first.
        parent: The id of the job of which this is a branch; None: it is none's.
        branches: How many jobs, one for each type of GPU, do the work of this one; 0: it is run itself.
    """

    id: str
    target: str
    config: Mapping[str, object]
    inputs: Mapping[str, FileRef]
    idempotency_key: str | None = None
    request_sha256: str = ""
    tenant: str = DEFAULT_TENANT
    priority: int = 0
    parent: str | None = None
    branches: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the jobs table. Only ``store.py`` makes new versions of it."""

    sequence: int
    new: NewJob
    state: JobState
    stage: str | None
    progress: float
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    trials: Sequence[Mapping[str, object]] = ()
    best: int | None = None
    result: Mapping[str, object] | None = None
    error: Mapping[str, object] | None = None
    engine: str | None = None  # its name among the artifacts
    artifacts: Mapping[str, StoredFile] = field(default_factory=dict)
    hold: Hold | None = None  # why it waits, where it is on hold
    outputs: Sequence[Mapping[str, object]] | None = None  # of the model: what each was taken for; None: it was not read yet

    @property
    def id(self) -> str:
        """The job's id."""
        return self.new.id


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a list shows it. Only ``store.py`` makes them."""

    sequence: int
    id: str
    state: JobState
    stage: str | None
    progress: float
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    target: str
    tenant: str
    outcome: str | None  # of its result
    speedup: float | None  # of its result
    predicted_speedup: Mapping[str, object] | None  # of its result, in the place of ``speedup`` where latency is predicted
