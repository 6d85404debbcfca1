"""What a client reads of a server's answers, checked: the server may be of another version, or none of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from calibration.codec import value_from_json


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the server shows it, which shows more; design and example in the server's own documentation (``/docs``)."""

    id: str
    state: str
    stage: str | None
    progress: float  # 0..1
    trials: tuple[Mapping[str, object], ...]
    result: Mapping[str, object] | None
    error: Mapping[str, object] | None
    hold: Mapping[str, object] | None = None  # why it waits, where it does
    outputs: tuple[Mapping[str, object], ...] | None = None  # what each was taken for; None: not known yet
    branches: tuple[Mapping[str, object], ...] = ()  # of a job for several types of GPU: each type, and the job that makes its engine

    @property
    def in_words(self) -> str:
        """What it is at: its stage, or why it waits."""
        if self.hold is not None:
            return f"on hold: {self.hold.get('reason')}"
        return self.stage if self.state == "running" and self.stage else self.state.replace("_", " ")


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a list shows it."""

    id: str
    state: str
    stage: str | None
    progress: float  # 0..1
    created_at: str | None = None  # "2026-11-29T10:00:00Z"
    target: str | None = None
    outcome: str | None = None
    speedup: float | None = None
    predicted_speedup: Mapping[str, object] | None = None  # in the place of ``speedup`` where latency is predicted


@dataclass(frozen=True, slots=True)
class ArtifactView:
    """One file that a job left."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class QuotaView:
    """What is used of a quota."""

    used: float
    limit: float | None
    resets_at: str | None  # when it counts from 0 again, where it does


@dataclass(frozen=True, slots=True)
class UsageView:
    """What a key may do and what its tenant has taken."""

    key_id: str
    role: str
    tenant: str
    quotas: Mapping[str, QuotaView]


def usage_view(answer: Mapping[str, object]) -> UsageView:
    """Return what the view shows of a tenant's usage.

    Raises:
        TypeError: The answer lacks a key, or a value is of another type.
    """
    key, quotas = (value_from_json(dict[str, object], answer.get(name)) for name in ("key", "quotas"))
    shown = {name: value_from_json(QuotaView, _known(QuotaView, quota)) for name, quota in quotas.items()}
    return UsageView(str(key.get("id")), str(key.get("role")), str(answer.get("tenant")), shown)


def job_view(answer: Mapping[str, object]) -> JobView:
    """Return what the view shows of a job.

    Raises:
        TypeError: The answer lacks a key, or a value is of another type.
    """
    return value_from_json(JobView, _known(JobView, answer))


def job_row(answer: Mapping[str, object]) -> JobRow:
    """Return what a list shows of a job, which may be all of the job.

    Raises:
        TypeError: The answer lacks a key, or a value is of another type.
    """
    return value_from_json(JobRow, _known(JobRow, answer))


def artifact_view(answer: object) -> ArtifactView:
    """Return what the view shows of a file.

    Raises:
        TypeError: The answer is no object, lacks a key, or a value is of another type.
    """
    return value_from_json(ArtifactView, _known(ArtifactView, answer))


def objects_in(answer: Mapping[str, object], key: str) -> tuple[Mapping[str, object], ...]:
    """Return the list of objects under a key of an answer.

    Raises:
        TypeError: There is no such list.
    """
    return value_from_json(tuple[Mapping[str, object], ...], answer.get(key))


def _known(cls: type[JobView] | type[JobRow] | type[ArtifactView] | type[QuotaView], answer: object) -> object:
    """Return the answer without the keys that we do not know, if it is an object at all."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in answer.items() if key in names} if isinstance(answer, Mapping) else answer
