"""How much a tenant may take: the limits, each with its name on the command line, and what there is of them in a request's answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from calibration.errors import InvalidConfigError
from service.errors import QuotaExceededError


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a tenant may take, all its keys together; None: as much as it likes.

    Minutes are those that stages of jobs ran: on a GPU where the job's target opens one, else on processors.
    """

    jobs_at_once: int | None = None  # queued and running
    jobs_per_day: int | None = None  # submitted
    stored_bytes: int | None = None  # uploads, and what finished jobs left
    gpu_minutes_per_day: float | None = None
    gpu_minutes_per_month: float | None = None
    cpu_minutes_per_day: float | None = None
    cpu_minutes_per_month: float | None = None

    def __post_init__(self) -> None:
        """Check every bound.

        Raises:
            InvalidConfigError: A limit is negative, or no number.
        """
        for name, value in self.given().items():
            if not 0 <= value <= _MOST:  # so that NaN is refused too
                raise InvalidConfigError(f"limit {name}: found {value}, expected 0 to {_MOST}", fix="Give a number in that range.")

    def given(self) -> dict[str, int | float]:
        """Return the limits that there are, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant has taken, by the names of ``Limits``. Days and months are those of UTC."""

    jobs_at_once: int = 0
    jobs_per_day: int = 0
    stored_bytes: int = 0
    gpu_minutes_per_day: float = 0.0
    gpu_minutes_per_month: float = 0.0
    cpu_minutes_per_day: float = 0.0
    cpu_minutes_per_month: float = 0.0

    def of(self, name: str) -> int | float:
        """Return what is used of one limit."""
        value: int | float = getattr(self, name)
        return value


def check_limit(name: str, used: float, limit: float | None, now: datetime, *, more: float = 0) -> None:
    """Accept what a request would take of a limit.

    Args:
        name: Of the limit.
        used: What is taken already.
        limit: The most; None: any.
        now: The present, in UTC.
        more: What the request adds; where that is not known, 0: then it is refused once all is used.

    Raises:
        QuotaExceededError: It is too much.
    """
    if limit is None or (used + more <= limit if more else used < limit):
        return
    resets_at = reset_of(name, now)
    when = "" if resets_at is None else f", and counts from 0 again at {resets_at:%Y-%m-%d %H:%M} UTC"
    adds = f", and this adds {_number(more)}" if more else ""
    raise QuotaExceededError(
        f"quota {name.replace('_', ' ')}: {_number(used)} used of {_number(limit)}{adds}{when}",
        fix=_fix(name, limit, more),
        retry_seconds=_SOON if resets_at is None else max(1, round((resets_at - now).total_seconds())),
    )


def reset_of(name: str, now: datetime) -> datetime | None:
    """Return when a limit counts from 0 again; None of one that does not."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if name.endswith("per_day"):
        return today + timedelta(days=1)
    if name.endswith("per_month"):
        return (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return None


def usage_json(limits: Limits, used: Used, now: datetime) -> dict[str, Mapping[str, object]]:
    """Return for each limit what is used, the most, and when it counts from 0 again, as callers see it."""
    shown: dict[str, Mapping[str, object]] = {}
    for name in LIMITS:
        resets_at = reset_of(name, now)
        shown[name] = {
            "used": round(used.of(name), 2),
            "limit": getattr(limits, name),
            "resets_at": None if resets_at is None else f"{resets_at:%Y-%m-%dT%H:%M:%SZ}",
        }
    return shown


def _fix(name: str, limit: float, more: float) -> str:
    if not limit:
        return "Ask the operator for a higher limit: it is 0."
    if more > limit:  # also where nothing else is used
        return f"Ask for {_number(limit)} at most at once, or the operator for a higher limit."
    return _FIXES[name]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}".removesuffix(".0")


LIMITS = tuple(field.name for field in dataclasses.fields(Limits))
_MOST = 2**53
_SOON = 60  # seconds: of what is free again when a job ends or a file goes
_WAIT = "Wait until then, or ask the operator for a higher limit."
_FIXES: Mapping[str, str] = {
    "jobs_at_once": "Wait until one of your jobs has ended, or cancel one.",
    "stored_bytes": "Delete jobs and uploads that you no longer need, or ask the operator for a higher limit.",
    **{name: _WAIT for name in LIMITS if name.endswith(("per_day", "per_month"))},
}
