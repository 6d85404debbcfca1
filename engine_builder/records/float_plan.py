"""What the nodes of an engine without quantized layers are computed in, and how that was found where the target's own baseline failed.

BF16 is no choice of the search: its kernels are as fast as FP16's and round eight times coarser, so that an engine never gains by it what
FP16 would not give. All it has more is range, and the errors of another grid: it may mend a model whose values FP16 does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.number_formats.precision import Precision


@dataclass(frozen=True, slots=True)
class FloatPlan:
    """A float type for every node: FP16, BF16 or FP32."""

    name: str  # in a reader's words
    base: Precision  # of every node that is not named
    nodes: Mapping[str, Precision] = field(default_factory=dict)  # by node name


@dataclass(frozen=True, slots=True)
class FloatAttempt:
    """What building and scoring an engine of a plan found."""

    name: str  # the plan's
    precisions: Mapping[str, int]  # layers of each precision
    score: float | None  # mean over all validation samples; None where there is no engine
    fits: bool  # the engine meets the budget on the samples that the search may look at
    latency_ms: float | None = None  # measured or predicted, of those that fit and of the target's own baseline
    failure: str | None = None  # why the engine does not count


@dataclass(frozen=True, slots=True)
class BlockLoss:
    """What a block of nodes loses alone in the target's baseline precision, all others in float32."""

    layer: str  # the block's first
    nodes: int
    loss: float  # mean over calibration samples
    loss_error: float  # standard error of the mean
    precision: Precision  # that the block has in the baseline with its fallback


@dataclass(frozen=True, slots=True)
class BaselineFallback:
    """Why and how a baseline that misses the budget by itself got a float fallback."""

    attempts: tuple[FloatAttempt, ...]  # the target's own baseline first
    blocks: tuple[BlockLoss, ...]  # the most sensitive first
    kept: str  # name of the plan that the baseline has now
    fits: bool  # whether that meets the budget
