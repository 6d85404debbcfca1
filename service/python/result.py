"""What a job found, typed: the parts of ``result.json`` that programs decide by. All of it is in ``Result.json``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from calibration.codec import value_from_json
from engine_builder.errors import EngineError

T = TypeVar("T")


class UnknownResultError(EngineError):
    """A result has not the form that this version knows."""

    slug = "unknown-result"
    title = "Unknown result"


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one call, in milliseconds."""

    median: float
    p95: float | None = None
    mad: float | None = None  # median absolute deviation
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: the baseline, or the one that was chosen."""

    accuracy: float | None = None  # mean score
    latency_ms: Latency | None = None  # None where it is not measured
    size_bytes: int | None = None
    precisions: Mapping[str, int] = field(default_factory=dict)  # layers of each precision


@dataclass(frozen=True, slots=True)
class Verdict:
    """How sure it is that the engine is inside the accuracy budget."""

    answer: str  # "met", "met_on_sample" or "not_met"
    metric: str | None = None
    drop: float | None = None  # the float model's score less the engine's
    interval: tuple[float, float] | None = None  # of the drop
    confidence: float | None = None  # of each end of the interval, 0..1
    n: int | None = None  # samples
    probability_over_budget: float | None = None  # 0..1


@dataclass(frozen=True, slots=True)
class PredictedSpeedup:
    """A speed-up that was predicted, not measured."""

    value: float
    range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """An offered engine's file, by its name in the folder of the job."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An engine that another accuracy budget would give."""

    fingerprint: str
    speedup: float
    in_words: str  # the tightest budget that it keeps: "99.9%"
    accuracy: float | None = None
    verdict: Verdict | None = None  # at that budget
    file: OfferedFile | None = None  # None: it was not kept, ``no_file`` says why
    no_file: str | None = None


@dataclass(frozen=True, slots=True)
class Offers:
    """What other accuracy budgets would give."""

    in_words: str = ""
    engines: tuple[Offer, ...] = ()  # the fastest first


@dataclass(frozen=True, slots=True)
class Result:
    """What a job found, and where its files are."""

    outcome: str  # "improved", "baseline_kept", or "built": the engine of an assignment that was given
    reason: str
    baseline: Engine
    chosen: Engine
    verdict: Verdict
    speedup: float | None = None  # latency of the baseline / that of the chosen engine; None where it is predicted
    speedup_spread: float | None = None  # median absolute deviation of ``speedup``
    predicted_speedup: PredictedSpeedup | None = None
    offers: Offers = field(default_factory=Offers)
    warnings: tuple[str, ...] = ()
    json: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)  # everything, as ``result.json`` has it
    engine_path: Path | None = None  # None: not downloaded
    report_path: Path | None = None  # of the page; None: not downloaded

    @property
    def is_improved(self) -> bool:
        """Whether an engine was chosen that is not the baseline."""
        return self.outcome == "improved"


def result_from_json(answer: Mapping[str, object], *, engine: Path | None = None, report: Path | None = None) -> Result:
    """Return the result that a job gave; what this version does not know stays in ``json`` alone.

    Args:
        answer: The content of ``result.json``.
        engine: Where the engine lies.
        report: Where the page lies.

    Raises:
        UnknownResultError: Something that belongs to every result is not there.
    """
    own = {"json", "engine_path", "report_path"}
    known = known_value(Result, {key: value for key, value in answer.items() if key not in own}, "result")
    return dataclasses.replace(known, json=answer, engine_path=engine, report_path=report)


def known_value(kind: type[T], data: Mapping[str, object], what: str) -> T:
    """Return the value of a dataclass that JSON describes, without what this version does not know.

    Args:
        kind: The dataclass.
        data: The JSON.
        what: It is, for a message.

    Raises:
        UnknownResultError: Something without a default is not there, or of another type.
    """
    try:
        return value_from_json(kind, _known(kind, data))
    except TypeError as exc:
        raise UnknownResultError(f"{what}: {exc}", fix="Check that client and server have the same version.") from exc


def _known(kind: object, data: object) -> object:
    """Return the data without keys that the dataclasses in ``kind`` do not have, at every depth."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(data, Mapping):
            return data
        kinds = typing.get_type_hints(kind)
        return {key: _known(kinds[key], value) for key, value in data.items() if key in kinds}
    inner = [one for one in typing.get_args(kind) if dataclasses.is_dataclass(one)]
    if not inner or data is None:
        return data
    if typing.get_origin(kind) is tuple:
        return [_known(inner[0], one) for one in data] if isinstance(data, list | tuple) else data
    return _known(inner[0], data)
