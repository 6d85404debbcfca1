"""What the stages before the report hand to it, as far as ``report.json`` holds it as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibration.accuracy.verdict import AccuracyVerdict
from calibration.number_formats.precision import Precision
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.search.loss_model import LossCheck
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef

# Milliseconds of each layer by its name: under ``search_space.BASELINE`` in the baseline engine, under each precision in the engine with
# every layer in it.
KernelTimes = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class PredictedSequence:
    """Assignments of growing loss, with the latency that is predicted for each as a ratio to the baseline's."""

    name: str  # what proposed them
    rungs: tuple[Mapping[str, Precision], ...]
    ratios: tuple[float, ...]
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FittedTimes:
    """The fitted model of latency."""

    conversion_ns: float  # of one element
    overhead_ms: Mapping[str, float]  # of one layer, by precision
    trials: int  # that it was fitted to


@dataclass(frozen=True, slots=True)
class TrialSaid:
    """What the models say of a trial that was known to them."""

    ratio: float  # of its latency to the baseline's
    loss: float
    loss_error: float | None  # standard error; None where it is not known
    refitted: float  # the loss, refitted to the trials
    refitted_error: float | None


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What one call of the stage ``forecast`` found worth trying, and what it predicted that from."""

    ladders: tuple[PredictedSequence, ...]
    kernels_ms: KernelTimes
    time_model: FittedTimes
    loss_model: LossCheck
    predicted: Mapping[str, TrialSaid]  # by fingerprint


@dataclass(frozen=True, slots=True)
class SearchSummary:
    """How the search went."""

    ended: str  # why, in words
    trials: int
    seconds: float  # of all stages so far


@dataclass(frozen=True, slots=True)
class FinalLatency:
    """Milliseconds of one call in the final timing; a predicted latency has no spread, and 0 runs."""

    median: float
    p95: float | None
    mad: float | None  # median absolute deviation of calls
    runs: int


@dataclass(frozen=True, slots=True)
class JudgedTrial:
    """A finalist's verdict."""

    fingerprint: str
    verdict: AccuracyVerdict


@dataclass(frozen=True, slots=True)
class VerdictResult:
    """Which engine is kept, how sure that is, and what was measured of it beside the baseline. A fingerprint is a trial's."""

    judged: tuple[JudgedTrial, ...]  # safest first, up to the first that is not accepted
    verdict: AccuracyVerdict  # on the engine that is kept
    chosen: str | None  # fingerprint; None where the baseline is kept
    ratio: float  # latency of what is kept to the baseline's
    latency_ms: Mapping[str, FinalLatency]  # by fingerprint, and of "baseline"
    spread: Mapping[str, RelativeLatency]  # by fingerprint, to the baseline
    engine: FileRef | None  # None where the baseline is kept
    least_gain: float  # share of the latency that an engine must save to count as faster, 0-1
    explicit: FileRef | None  # the model that the engine was built from, with Q/DQ nodes
    baseline_accuracy: float  # mean score
    baseline_precisions: Mapping[str, int]  # layers of each precision
    baseline_size_bytes: int
    environment: Mapping[str, object]  # what a reader needs to repeat a timing
    tensors: EngineTensors | None  # of the engine that ships, where it is a plan
