"""What a report says of the search: what was predicted of its trials, the final timing, and what the probes took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine_builder.stage_io.engines import FinalLatency
from engine_builder.timing import RelativeLatency


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of a trial: its loss, and its latency when it was proposed."""

    index: int
    fingerprint: str
    loss: float | None  # None where nothing was probed
    loss_error: float | None  # standard error; None where it is not known
    refitted: float | None  # ``loss``, refitted to the trials
    refitted_error: float | None
    ratio: float | None  # latency / the baseline's; None of a trial that no prediction proposed


@dataclass(frozen=True, slots=True)
class FinalTiming:
    """The timing of the finalists in turns with the baseline."""

    latency_ms: Mapping[str, FinalLatency]  # by fingerprint, and of the baseline as "baseline"
    relative: Mapping[str, RelativeLatency]  # by fingerprint


@dataclass(frozen=True, slots=True)
class ProbeSummary:
    """What measuring the float model took."""

    samples: int  # behind each loss
    hessian_samples: int
    decisions: int
    forwards: float  # work, in forward passes of the whole model, each of one sample
    providers: tuple[str, ...]  # of ONNX Runtime
