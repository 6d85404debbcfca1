"""A trial: one assignment, built, scored and timed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from calibration.accuracy.verdict import MOST_LIKELY_OVER
from calibration.number_formats.precision import Precision
from engine_builder.records.corrections import Correction
from engine_builder.workspace.workspace import FileRef

# the name of the float model with its constants folded into the layers, as an engine of its own beside the user's file
FOLDED = "folded"
SEARCH_SHARE = 0.5  # of the validation samples, where the others are kept for the verdict


@dataclass(frozen=True, slots=True)
class Accuracy:
    """An engine against the baseline engine on one set of samples, in the job's metric."""

    score: float  # mean over samples
    baseline: float  # the baseline engine's mean on the same samples
    excess: float  # how far inside the budget: not negative means met on these samples
    flips: float  # share of samples whose score differs from the baseline engine's
    binary: bool  # whether every score is 0 or 1
    samples: int
    probability_over: float | None = None  # that the engine is over the budget, as far as these samples tell; None: not estimated
    likely_slack: float | None = None  # median of how far inside the budget it is on all data
    has_margins: bool = False  # whether the two above rest on how clearly each decision was made

    @property
    def met(self) -> bool:
        """Whether the budget is met as far as these samples tell: more likely than not, or, where that was not estimated, on them."""
        if self.probability_over is None:
            return self.excess >= 0.0
        return self.probability_over < MOST_LIKELY_OVER


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one call, measured interleaved with the baseline engine in the same process."""

    median_ms: float
    p95_ms: float
    mad_ms: float
    runs: int
    baseline_median_ms: float
    baseline_mad_ms: float
    ratio: float  # to the baseline, paired by rounds of the same run; below 1 is faster
    ratio_mad: float = 0.0  # median absolute deviation of ``ratio``; 0 where latencies are predicted, as below
    ratio_error: float = 0.0  # standard error of ``ratio``


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial found. ``accuracy`` and ``latency`` are None when it failed."""

    index: int
    fingerprint: str
    precisions: dict[str, Precision]  # the quantized layers as the engine has them; every other layer has the baseline precision
    # What proposed it: "baseline", "folded", "given" by the user, a one-format engine ("all_low"), "products", "fastest", an order's
    # name, "frontier", "refine", "moves" or "route".
    order: str
    low_layers: int
    on_all: Accuracy | None  # on every validation sample
    on_search: Accuracy | None  # on the half that the search may look at
    loss: float | None  # mean divergence of the outputs from the float model's
    latency: Latency | None
    size_bytes: int | None
    scores: FileRef | None  # of every validation sample, as ``evaluation.measurement.write_scores`` keeps them
    seconds: float  # wall time of building, scoring and timing
    failure: str | None  # the error's detail, when it could not be built or run
    bias: Correction | None = None  # what correcting the biases was worth; None where there was nothing to correct
    corrections: FileRef | None = None  # the corrections of biases that the engine has
    # The job's corrections when it was built, where the ones that were measured since then would make it another engine; None: the job's.
    made_with: FileRef | None = None
    engine: FileRef | None = None  # kept where another build would give another engine
    are_outputs_equal: bool = False  # to the float model's, bit for bit, on every validation sample
    reached: FileRef | None = None  # a list of ``backends.achieved_precision.AchievedPrecision``, where the builder says what layers got
    layers: FileRef | None = None  # of the engine, in the words of the runtime's own inspector, where it has one
    kernels: FileRef | None = None  # of the engine, a list of ``backends.kernels.KernelTime``, where the runtime names conversions
    build_route: str = ""  # by which the engine was built (``records.build_route``); empty: the builder's own

    @property
    def is_candidate(self) -> bool:
        """Whether this is another engine than the baseline, which may ship in its place."""
        return self.low_layers > 0 or self.order == FOLDED

    @property
    def met(self) -> bool:
        """Whether the budget is met, as far as all validation samples tell; a failed trial is not met."""
        return self.on_all is not None and self.on_all.met


def failed_trial(index: int, fingerprint: str, quantized: dict[str, Precision], order: str, failure: str, seconds: float = 0.0) -> Trial:
    """Return the trial of an assignment that could not be built or run, after so many ``seconds``."""
    return Trial(index, fingerprint, quantized, order, len(quantized), None, None, None, None, None, None, seconds, failure)


def mean_seconds(trials: Iterable[Trial]) -> float:
    """Return what a trial took on average, the baseline's apart, which builds nothing; 0 where none is known."""
    known = [trial.seconds for trial in trials if trial.low_layers and trial.seconds > 0.0]
    return sum(known) / len(known) if known else 0.0
