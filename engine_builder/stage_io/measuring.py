"""Requests and results of the stages that read the user's files and measure the float model.

A request names what its stage reads and nothing else: its JSON, with each file replaced by its content, is the key under which a result is
kept for other jobs. What only the search or the verdict reads, like the accuracy budget, must not come in here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from calibration.accuracy.budget import Budget
from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.execution.provider import Provider
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeMethod
from calibration.sensitivity.records import HessianTrace, PairTest
from engine_builder.config.config import Order
from engine_builder.config.inspect_settings import InspectSettings
from engine_builder.records.calibrated import Calibrated, EligiblePrecisions
from engine_builder.workspace.workspace import FileRef

PAIR_SAMPLES = 64  # that pairs are tested on, about


def paired_samples(probed: int, batch: int) -> int:
    """Return how many samples pairs are tested on, whole calls of ``batch``, of those that single layers were probed on."""
    return min(max(PAIR_SAMPLES // batch, 1) * batch, probed)


@dataclass(frozen=True, slots=True)
class JobFiles:
    """What the user gave."""

    model: FileRef
    calibration: FileRef
    validation: FileRef | None = None
    metric_model: FileRef | None = None  # the user's own metric


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """The user's files and the settings that bear on how they are read."""

    files: JobFiles
    settings: InspectSettings


@dataclass(frozen=True, slots=True)
class Decided:
    """How many decisions there are to judge engines by."""

    samples: int  # of the validation set, one decision each
    has_margins: bool  # whether it is seen how clearly each is made


@dataclass(frozen=True, slots=True)
class InspectResult:
    """The files that later stages read, and what the pipeline itself needs to know of them."""

    inspection: FileRef  # an ``Inspection``
    model: FileRef  # its ``PreparedModel``
    calibration: FileRef  # its calibration samples
    scores: FileRef  # of the float model on the validation samples
    baseline: FileRef  # what engines must beat: the user's own file where the runtime loads it
    files: tuple[FileRef, ...]  # what the inspection names, so that whoever keeps this result keeps them too
    layers: tuple[str, ...]
    residual_adds: tuple[str, ...]  # those of the layers that only add
    metric: Metric
    scored_kinds: tuple[OutputKind, ...]  # of what probes compare in the place of the outputs that the metric reads
    samples: int  # of the calibration set
    decided: Decided | None  # how the validation samples decide on the budget, where a sample is one decision
    batch: int  # samples in one call of the float model
    processors: int
    sample_seconds: float  # one forward pass of the float model for one sample, at ``batch``, one thread
    judged: tuple[JudgedOutput, ...] = ()  # how each compared output is taken, and why
    timed_batch: int = 1  # samples in a call that is timed
    is_folded_apart: bool = False  # whether the float model with its constants folded is an engine of its own, beside the baseline


@dataclass(frozen=True, slots=True)
class ConfidenceRequest:
    """Whether the samples can show at all what the user wants to be sure of."""

    scores: FileRef  # the float model's own, on the validation samples
    metric: Metric
    budget: Budget
    confidence: float | None  # None: only that the float model is inside its own budget
    seed: int


@dataclass(frozen=True, slots=True)
class ConfidenceResult:
    """How many samples there are: enough, or the stage had refused them."""

    samples: int


@dataclass(frozen=True, slots=True)
class RangesRequest:
    """A float model, its samples, and the precisions that the job may use."""

    model: FileRef  # a ``PreparedModel``
    calibration: FileRef
    method: RangeMethod
    precisions: tuple[Precision, ...]  # in the target's order
    target: str  # whose dialect says which layer may take which
    gpu: str | None
    only_paying: bool = False  # whether precisions whose kernels do not pay on this machine are left out: the user named none
    timed_batch: int = 1  # samples in a timed call
    threads: int = 1  # of a run


@dataclass(frozen=True, slots=True)
class RangesResult:
    """Ranges of activations, and what each layer can take."""

    ranges: FileRef  # a ``RangeTable``
    eligible: EligiblePrecisions
    last_resorts: tuple[Precision, ...] = ()  # precisions whose engines are tried only where faster ones miss the budget
    slower: EligiblePrecisions = field(default_factory=dict)  # left out: predicted to be slower, before any engine is built


@dataclass(frozen=True, slots=True)
class BiasesRequest:
    """A float model, to which the channel means of its engines' layers are brought back."""

    of: Calibrated
    seed: int


@dataclass(frozen=True, slots=True)
class CorrectRequest:
    """What to try to make quantized layers less lossy."""

    of: Calibrated  # its corrections say what biases are corrected against; without them that is measured, too
    method: RangeMethod
    gptq: tuple[Precision, ...]  # precisions whose weights are rounded by GPTQ
    seed: int
    target: str  # whose dialect writes whole networks
    gpu: str | None


@dataclass(frozen=True, slots=True)
class CorrectResult:
    """The corrections that every engine of the job may use."""

    corrections: FileRef  # a ``CorrectionTable``
    files: tuple[FileRef, ...]  # that the table names in its turn
    changed: tuple[LayerPrecision, ...] = ()  # what an engine has otherwise than without them, its biases apart


@dataclass(frozen=True, slots=True)
class SensitivityResult:
    """What one share of the samples gave."""

    losses: FileRef  # (samples, layer precisions) and the Gram sums, see ``calibration.sensitivity.layer_losses``
    providers: Mapping[str, int]  # of ONNX Runtime, and how many parts each measured; none where nothing was probed
    probed: int = 1  # layer precisions; 0: more samples would decide nothing, and the file holds none


@dataclass(frozen=True, slots=True)
class SensitivityRequest:
    """The calibration samples [start, stop) to probe layers on: all of them, or those that more samples may still decide on."""

    of: Calibrated
    start: int
    stop: int
    earlier: tuple[FileRef, ...] = ()  # losses on the samples before these; none: every layer is probed
    allowed_loss: float | None = None  # about what the accuracy budget allows, where ``earlier`` says anything
    batch: int = 1  # samples in one call of the model: what the share can be split by
    is_part: bool = False  # of a share that is split: the sums of each call are kept apart, for whoever puts the parts together
    parts: tuple[SensitivityResult, ...] = ()  # of the whole share, measured elsewhere: they are only put together
    provider: Provider | None = None  # all of a part is measured with it, or fails; None: with CUDA as far as it works, else on the CPU


@dataclass(frozen=True, slots=True)
class HessianResult:
    """The traces, on how many samples, and by which providers of ONNX Runtime, as above."""

    traces: tuple[HessianTrace, ...]
    samples: int
    providers: Mapping[str, int]
    probes: FileRef | None = None  # ``TensorProbes`` of a part, which has no traces


@dataclass(frozen=True, slots=True)
class HessianRequest:
    """How closely to look: traces are probed until those that the budget's boundary hangs on are known."""

    of: Calibrated
    precisions: tuple[Precision, ...]  # in the target's order
    allowed_loss: float | None  # about what the accuracy budget allows; None: not known, so every probe is made
    seed: int
    layers: tuple[int, int] | None = None  # of a part: the places [start, stop) of its layers among the eligible ones
    parts: tuple[HessianResult, ...] = ()  # the first probes of all layers, made elsewhere: only further ones are made
    provider: Provider | None = None  # as above


@dataclass(frozen=True, slots=True)
class InteractionsResult:
    """The pairs that were tested, and by which providers of ONNX Runtime, as above."""

    tests: tuple[PairTest, ...]
    providers: Mapping[str, int]
    losses: FileRef | None = None  # (samples, pairs), of a part, which has no tests


@dataclass(frozen=True, slots=True)
class InteractionsRequest:
    """Which losses say what pairs are worth a test."""

    of: Calibrated
    losses: tuple[FileRef, ...]
    allowed_loss: float | None = None  # about what the accuracy budget allows, to test only pairs that matter to it; None: all do
    samples: tuple[int, int] | None = None  # the calibration samples [start, stop) to test on; None: the first ones
    batch: int = 1  # samples in one call of the model: what the samples can be split by
    is_part: bool = False  # of tests that are split by samples: the losses are kept, for whoever puts the parts together
    parts: tuple[InteractionsResult, ...] = ()  # on all the samples, measured elsewhere: they are only put together
    provider: Provider | None = None  # as above


@dataclass(frozen=True, slots=True)
class RankRequest:
    """All measurements of the float model."""

    of: Calibrated
    losses: tuple[FileRef, ...]
    traces: tuple[HessianTrace, ...]
    hessian_samples: int
    tests: tuple[PairTest, ...]
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class RankResult:
    """The measurements put together."""

    table: FileRef  # a ``SensitivityTable``
    interactions: FileRef  # arrays (layer precisions, layer precisions), in the order of the table's rows
    rankings: Mapping[str, tuple[LayerPrecision, ...]]  # by the order's name, the cheapest first


@dataclass(frozen=True, slots=True)
class Analysed:
    """What the analysis found: what every layer costs, alone and in pairs."""

    ranked: RankResult
    tests: tuple[PairTest, ...]
    providers: Mapping[str, int]  # of ONNX Runtime, and how many parts of stages each measured


def parts_by_provider(results: Iterable[SensitivityResult | HessianResult | InteractionsResult]) -> dict[str, int]:
    """Return how many parts each provider measured, in the order of their names."""
    counts: Counter[str] = Counter()
    for one in results:
        counts.update(one.providers)
    return dict(sorted(counts.items()))
