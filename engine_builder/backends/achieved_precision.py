"""Asked for against got: the precision a node was assigned and the one its kernel multiplies in; every difference has a named rule."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.number_formats.precision import Precision
from engine_builder.backends.kernel_work import (
    CONVOLUTION,
    FLOATS,
    LOW_PRECISIONS,
    TRANSPOSED,
    factors_of,
    is_attention,
    is_pointwise,
    math_is_known,
    math_of,
    multiplies,
    weight_of,
)
from engine_builder.backends.kernels import Kernel

_BUILDER_SUFFIX = re.compile(r"(_U\d+)?(_myl\d+_\d+)?$")


class Rule(enum.StrEnum):
    """Why a node did not get what was asked for."""

    FOLDED = "no kernel names it: it was computed at build time, merged into another node, or its output is not used"
    UNKNOWN = "unknown: the builder does not say in which format its kernel computes, or says it in words that are not known here"
    POINTWISE = "it became part of a pointwise kernel, which computes in floating point"
    ATTENTION = "it is part of a fused attention, which takes a low precision only if Q, K, the softmax's output and V all have it"
    WEIGHT_ONLY = "only its weight has the low precision; it is widened in the kernel, which multiplies in floating point"
    FLOAT_WEIGHT = "only its input has the low precision, so the kernel multiplies in floating point"
    TRANSPOSED = "transposed convolutions have no low-precision kernel here; the weight is widened at run time"
    DEPTHWISE = "the builder keeps depthwise convolutions in floating point here"
    NOT_QUANTIZED = "neither its input nor its weight reaches the kernel in low precision: Q/DQ must stand directly on both"
    OTHER_LOW_PRECISION = (
        "its inputs reach the kernel in another low precision than was asked for: the graph or a neighbour's Q/DQ gives it them"
    )
    OTHER_FLOAT = "the casts in the graph, or those that the builder moved, give it another floating-point format"


@dataclass(frozen=True, slots=True)
class AchievedPrecision:
    """One node's precision in an engine."""

    layer: str  # name of the node
    asked: Precision
    got: Precision | None  # None where no kernel names it, or what its kernel computes in is unknown; the reason tells which
    kernel: str | None  # name of the kernel that multiplies, or that may
    reason: Rule | None  # of a difference, None where there is none
    tactic: str | None = None  # how that kernel is implemented, in the builder's words; None where it does not say

    def __post_init__(self) -> None:
        """A difference without a reason, and a reason without a difference, are mistakes."""
        if (self.asked is self.got) is not (self.reason is None):
            raise ValueError(
                f"{self.layer}: found asked {self.asked}, got {self.got}, reason {self.reason}, expected a reason iff they differ"
            )


def achieved_precisions(kernels: Sequence[Kernel], asked: Mapping[str, Precision]) -> tuple[AchievedPrecision, ...]:
    """Return what each node got, in the order of ``asked``.

    Args:
        kernels: Of the engine.
        asked: Precision by node name; floating-point arithmetic fulfils one for weights alone, where the weight has it.
    """
    return tuple(_achieved_precision(kernels, node, precision) for node, precision in asked.items())


def _achieved_precision(kernels: Sequence[Kernel], node: str, asked: Precision) -> AchievedPrecision:
    listing = [kernel for kernel in kernels if node in kernel.nodes]
    if not listing:
        return AchievedPrecision(node, asked, None, None, Rule.FOLDED)
    multiplying = [kernel for kernel in listing if multiplies(kernel)]
    if not multiplying:
        first = listing[0]
        got = next((FLOATS[tensor.dtype] for tensor in first.inputs if tensor.dtype in FLOATS), None)
        if got is None or not all(is_pointwise(kernel) for kernel in listing):
            return AchievedPrecision(node, asked, None, first.name, Rule.UNKNOWN, first.tactic)
        return AchievedPrecision(node, asked, got, first.name, None if got is asked else Rule.POINTWISE, first.tactic)
    kernel = next((kernel for kernel in multiplying if _is_named_after(kernel, node)), multiplying[0])
    if not math_is_known(kernel):
        return AchievedPrecision(node, asked, None, kernel.name, Rule.UNKNOWN, kernel.tactic)
    got = _got(kernel)
    return AchievedPrecision(node, asked, got, kernel.name, None if got is asked else _rule(kernel, asked, got), kernel.tactic)


def _got(kernel: Kernel) -> Precision:
    weight = weight_of(kernel)
    if weight is not None and weight.dtype in LOW_PRECISIONS and LOW_PRECISIONS[weight.dtype].is_weight_only:
        return LOW_PRECISIONS[weight.dtype]
    if is_attention(kernel) and math_of(kernel) in LOW_PRECISIONS.values():
        wide = [tensor for tensor in factors_of(kernel)[:2] if tensor.dtype in FLOATS]  # queries and keys
        return FLOATS[wide[0].dtype] if wide else math_of(kernel)
    return math_of(kernel)


def _rule(kernel: Kernel, asked: Precision, got: Precision) -> Rule:
    weight = weight_of(kernel)
    if got in LOW_PRECISIONS.values():
        return Rule.OTHER_LOW_PRECISION
    if asked not in LOW_PRECISIONS.values():
        return Rule.OTHER_FLOAT
    if is_attention(kernel):
        return Rule.ATTENTION
    if kernel.kind == TRANSPOSED:
        return Rule.TRANSPOSED
    if weight is not None and weight.dtype in LOW_PRECISIONS:
        return Rule.WEIGHT_ONLY
    if kernel.inputs and kernel.inputs[0].dtype in LOW_PRECISIONS:
        return Rule.FLOAT_WEIGHT
    if kernel.kind == CONVOLUTION and weight is not None and weight.shape[1:2] == (1,) and (kernel.inputs[0].shape[1:2] or (1,)) > (1,):
        return Rule.DEPTHWISE
    return Rule.NOT_QUANTIZED


def _is_named_after(kernel: Kernel, node: str) -> bool:
    return node in {_BUILDER_SUFFIX.sub("", part) for part in (kernel.name, *kernel.name.split("+"))}
