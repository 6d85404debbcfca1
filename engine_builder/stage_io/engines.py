"""Requests and results of the stages that build, score and time engines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from calibration.accuracy.verdict import AccuracyVerdict, Selection
from calibration.codec import json_from_value
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.config.config import Config
from engine_builder.config.objective import Objective
from engine_builder.records.assignment import corrected_fingerprint, fingerprint_of
from engine_builder.records.build_route import Knob
from engine_builder.records.calibrated import Calibrated
from engine_builder.records.corrections import Correction
from engine_builder.records.stripped_plan import StrippedPlan
from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.deciding import Deciding
from engine_builder.search.loss_model import LossCheck
from engine_builder.search.moves.steps_from import StepsFrom
from engine_builder.search.search_space import BASELINE
from engine_builder.stage_io.measuring import RankResult
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef, json_bytes

# Milliseconds of each layer by its name: under ``search_space.BASELINE`` in the baseline engine, under each precision in the engine with
# every layer in it.
KernelTimes = Mapping[str, Mapping[str, float]]

AHEAD = "ahead"  # folder in the workspace, of what is prepared


@dataclass(frozen=True, slots=True)
class EngineJob:
    """What every engine of a job is built, scored and timed from."""

    config: Config
    inspection: FileRef  # an ``Inspection``
    baseline: FileRef  # what engines must beat
    calibrated: Calibrated
    changed: tuple[LayerPrecision, ...] = ()  # what engines have otherwise than those that were tried before corrections were measured
    knobs: tuple[Knob, ...] = ()  # of the target's builder, once the baseline is built; empty where it has none

    def fingerprint(self, layers: Iterable[str], quantized: Mapping[str, Precision], baseline: Precision) -> str:
        """Return what an engine of the job is known by.

        Args:
            layers: Every layer of the model.
            quantized: The precision of each quantized layer, as asked.
            baseline: That of all others.
        """
        plain = fingerprint_of(layers, quantized, baseline)
        is_changed = any(quantized.get(item.layer) is item.precision for item in self.changed)
        return corrected_fingerprint(plain) if is_changed else plain


@dataclass(frozen=True, slots=True)
class BaselineRequest:
    """A baseline to build, for a target that runs no ONNX file."""

    job: EngineJob  # its baseline is not read
    final: bool = False  # whether to build the baseline of the search again, at the level of the engine that ships


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """The baseline, and the inspection that knows of it."""

    baseline: FileRef
    inspection: FileRef
    files: tuple[FileRef, ...]  # that belong to them
    knobs: tuple[Knob, ...] = ()  # of the builder; empty where it has none


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """An assignment to build and score before the search asks for its trial. The result is a ``Prepared``."""

    job: EngineJob
    precisions: Mapping[str, Precision]  # of the quantized layers, as asked

    @property
    def place(self) -> str:
        """The folder in the workspace for what is made: its name is the digest of what is asked for."""
        return f"{AHEAD}/{hashlib.sha256(json_bytes(json_from_value(self))).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An engine that was built and scored before the search asked for it, and not timed: all of its trial but the latency."""

    precisions: dict[str, Precision]  # of the quantized layers, as the engine has them
    engine: FileRef
    beside: tuple[FileRef, ...]  # files that must lie beside it
    size_bytes: int
    on_all: Accuracy
    on_search: Accuracy
    is_inside: bool  # whether it keeps the budget on what the search sees
    loss: float
    are_outputs_equal: bool
    bias: Correction | None
    corrections: FileRef | None
    scores: FileRef
    reached: FileRef | None
    layers: FileRef | None
    seconds: float  # that building and scoring took
    # What a search with a limit must have had left at the start for the engine to be this one: another one was built, too, without
    # corrected biases. None: none was.
    seconds_needed: float | None
    made_under: str  # what the plan depends on besides the request: the kind of GPU, its driver, the builder's version


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """An assignment to build, score and time. The result is a ``Trial``."""

    job: EngineJob
    precisions: Mapping[str, Precision]  # of the quantized layers, as asked
    index: int
    proposed_by: str
    deciding: Deciding = field(default_factory=Deciding)  # what the engine's latency is compared with
    seconds_left: float | None = None  # of the search; None: it has no limit
    beaten: tuple[str, ...] = ()  # fingerprints of trials whose engines can no longer ship: their files go
    prepared: Prepared | None = None  # the engine, where it was built and scored before


@dataclass(frozen=True, slots=True)
class ProfiledEngine:
    """An engine that was built for its kernels alone."""

    precisions: Mapping[str, Precision]
    kernels: FileRef  # a list of ``backends.kernels.KernelTime``
    baseline: FileRef  # the baseline's, profiled beside it


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """The trials to fit the models to."""

    job: EngineJob
    ranked: RankResult | None  # None: only the assignment that is predicted to be fastest is asked for, whatever its loss
    trials: tuple[Trial, ...]
    kernels_ms: KernelTimes | None = None  # from the first call; None: this is the first
    refined: bool = False  # whether candidates of these models were tried before, so that the trials tell where the models are wrong
    probe: ProfiledEngine | None = None  # from an earlier call
    around: StepsFrom | None = None  # None: whole sequences are asked for
    seconds_left: float | None = None  # of the search, for builds; None: it has no limit


@dataclass(frozen=True, slots=True)
class PredictedSequence:
    """Candidates of growing loss, with the latency that is predicted for each as a ratio to the baseline's."""

    name: str
    rungs: tuple[Mapping[str, Precision], ...]
    ratios: tuple[float, ...]
    fingerprints: tuple[str, ...]
    errors: tuple[float, ...] = ()  # standard error of each ratio; empty where it is not known


@dataclass(frozen=True, slots=True)
class FittedTimes:
    """The fitted model of latency, for a reader."""

    conversion_ns: float  # of one element
    overhead_ms: Mapping[str, float]  # by precision
    trials: int  # that it was fitted to
    fitted: str | None = None  # which of the models of kernels was chosen; None: conversions count by their elements alone
    left_out: float | None = None  # root mean square error of each trial's ratio, predicted from all others


@dataclass(frozen=True, slots=True)
class LossSaid:
    """What the model of loss says of an engine, each with its standard error where that is known."""

    loss: float
    loss_error: float | None
    refitted: float  # the loss, refitted to the trials
    refitted_error: float | None


@dataclass(frozen=True, slots=True)
class TrialSaid:
    """What the models say of a trial's engine."""

    ratio: float  # of its latency to the baseline's
    loss: float | None  # None, like all below, where no losses were known
    loss_error: float | None
    refitted: float | None
    refitted_error: float | None
    ratio_error: float | None = None


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What is worth trying, and what it is predicted from."""

    ladders: tuple[PredictedSequence, ...]
    kernels_ms: KernelTimes
    time_model: FittedTimes
    loss_model: LossCheck | None  # None where no losses were known
    predicted: Mapping[str, TrialSaid]  # of each trial so far, by its fingerprint
    probe: ProfiledEngine | None = None  # what was profiled besides, as far as it is known


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """A finalist to build as it would ship. The result is its ``Trial``."""

    job: EngineJob
    finalist: Trial


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """An engine of the search to build again by a route, to score and to time beside that engine."""

    job: EngineJob
    origin: Trial  # its engine was kept
    route: str  # as the builder takes it
    index: int
    most_seconds: float  # for all of it: a build that hangs is ended


@dataclass(frozen=True, slots=True)
class RouteResult:
    """The engine of a route."""

    trial: Trial
    relative: RelativeLatency  # to the engine that it came from, by the rounds of one timing


@dataclass(frozen=True, slots=True)
class VerdictRequest:
    """The finalists to judge."""

    job: EngineJob
    finalists: tuple[Trial, ...]  # safest first
    selection: Selection
    most_timed: int  # of those that pass the fastest are timed, so many at most
    tried: int = 1  # engines with quantized layers that the search scored: among so many it could choose by the samples that it saw


@dataclass(frozen=True, slots=True)
class JudgedTrial:
    """A finalist's verdict."""

    fingerprint: str
    verdict: AccuracyVerdict


@dataclass(frozen=True, slots=True)
class OrderScores:
    """What an engine whose layers round by the call scores in two orders of the samples: the worse one counts."""

    given: float  # in the order of the validation set
    shuffled: float  # in a random order


@dataclass(frozen=True, slots=True)
class FinalLatency:
    """Milliseconds of one call; a predicted latency has no spread, and 0 runs."""

    median: float
    p95: float | None
    mad: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class VerdictResult:
    """What is kept, how sure that is, and what was measured of it beside the baseline."""

    judged: tuple[JudgedTrial, ...]  # safest first; where an order is needed for a confidence, up to the first that is not accepted
    verdict: AccuracyVerdict  # of the engine that is kept, or of the baseline
    chosen: str | None  # fingerprint; None: the baseline is kept
    ratio: float  # latency of what is kept to the baseline's
    latency_ms: Mapping[str, FinalLatency]  # by fingerprint, and of "baseline"
    spread: Mapping[str, RelativeLatency]  # by fingerprint, to the baseline
    engine: FileRef | None  # None: the baseline is kept
    least_gain: float  # relative: a smaller gain is within the error of the target's latencies
    explicit: FileRef | None  # the model with its precisions written into it
    baseline_accuracy: float
    baseline_precisions: Mapping[str, int]  # layers of each precision
    baseline_size_bytes: int
    environment: Mapping[str, object]  # what a reader needs to repeat a timing
    tensors: EngineTensors | None  # of the engine that is kept, where it is a plan
    orders: Mapping[str, OrderScores] = field(default_factory=dict)  # by fingerprint, of engines that were run in both
    reordered: Mapping[str, FileRef] = field(default_factory=dict)  # scores of those for which the random order is the worse
    profile: FileRef | None = None  # times of the layers of what is kept, a list of ``backends.kernels.KernelTime``; None: not told apart
    waited: float | None = None  # largest share of a timed engine's wall time in which its thread had no processor; None: not known


@dataclass(frozen=True, slots=True)
class StripRequest:
    """What a verdict keeps, to build without its weights, to judge and to time with its weights put back."""

    job: EngineJob  # with the budget that the verdict is at
    finalists: tuple[Trial, ...]  # that were judged, safest first
    judged: VerdictResult
    selection: Selection
    tried: int  # as for ``VerdictRequest``

    @property
    def chosen(self) -> Trial | None:
        """What is kept; None: the baseline."""
        return next((trial for trial in self.finalists if trial.fingerprint == self.judged.chosen), None)


@dataclass(frozen=True, slots=True)
class StripResult:
    """What ships: the stripped plan with what was measured of it, or the whole one as the verdict has it."""

    plan: StrippedPlan
    judged: VerdictResult
    chosen: Trial | None  # None: the baseline


def is_reached(objective: Objective, judged: VerdictResult) -> bool:
    """Return whether what the verdict keeps is fast enough, by the timing of the verdict."""
    if objective.max_latency_ms is not None:
        return judged.latency_ms[judged.chosen or BASELINE].median <= objective.max_latency_ms
    return judged.ratio <= objective.largest_ratio(1.0)
