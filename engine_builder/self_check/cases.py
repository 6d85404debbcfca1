"""What self-check builds: the same network in several assignments, and how two sets of outputs compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.accuracy.metrics import OutputKind
from calibration.graph.layers import Layer, LayerKind, find_layers
from calibration.number_formats.precision import Precision
from calibration.sensitivity.task_losses import losses
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.legalize import legalize
from engine_builder.self_check.model import BATCH, INPUT, PICTURE


@dataclass(frozen=True, slots=True)
class Case:
    """One engine."""

    name: str
    model: str  # the explicit model that it is built from: cases of one model differ in batch alone
    every: int  # every how many-th layer that may be INT8 is; 0 for none
    batch: int  # samples in one run
    least_agreement: float  # share of predictions that the low precisions may leave as they are in float32, at the least
    most_kl: float  # mean KL divergence from float32's predictions, at the most


# The bounds are some five times what the simulation gives (99%, 95% and 98%; 2e-5, 0.03 and 0.002): an error is far outside, another
# library's rounding is not.
# Batch 1 is hardly more than launches, batch 64 hardly any: the two tell a launch's time from a kernel's.
CASES = (
    Case("fp16", "fp16", 0, BATCH, 0.96, 1e-4),
    Case("int8", "int8", 1, BATCH, 0.80, 0.15),
    Case("mixed", "mixed", 2, BATCH, 0.92, 0.015),
    Case("fp16, batch 1", "fp16", 0, 1, 0.96, 1e-4),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one engine's logits agree with another's on the same pictures."""

    samples: int
    agreement: float  # 0-1, share of equal predictions
    kl: float  # mean KL divergence
    largest_difference: float  # of any two logits
    scale: float  # standard deviation of the reference's logits, which the difference is to be seen against


def case_by_name(name: str) -> Case:
    """Return the case of that name.

    Raises:
        KeyError: There is none.
    """
    return {case.name: case for case in CASES}[name]


def file_stem(case: Case) -> str:
    """Return the case's name as part of a file's."""
    return case.name.replace(", ", "-").replace(" ", "-")


def assignment_of(case: Case, model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, Precision]:
    """Return the precision of every layer of the prepared model, as an engine can have it."""
    eligibility = Eligibility(model, layers)
    eligible = [layer.name for layer in layers if eligibility.can_take(layer, Precision.INT8)]
    quantized = dict.fromkeys(eligible[:: case.every], Precision.INT8) if case.every else {}
    return dict(legalize(model, layers, quantized).precisions)


def asked_of(precisions: Mapping[str, Precision], layers: Sequence[Layer]) -> dict[str, Precision]:
    """Return what a kernel can be found for: every layer but the sums, which become part of their neighbours' kernels."""
    return {layer.name: precisions[layer.name] for layer in layers if layer.kind is not LayerKind.RESIDUAL_ADD}


def macs_of(case: Case, model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of one run of the prepared model at the case's batch."""
    return case.batch * sum(layer.macs for layer in find_layers(model, {INPUT: (1, *PICTURE)}))


def compared(reference: NDArray[np.float32], found: NDArray[np.float32]) -> Comparison:
    """Return how ``found`` agrees with ``reference``, both (samples, classes) logits."""
    return Comparison(
        samples=len(reference),
        agreement=float(np.mean(reference.argmax(axis=1) == found.argmax(axis=1))),
        kl=float(np.mean(losses((OutputKind.LOGITS,), (reference,), (found,)))),
        largest_difference=float(np.max(np.abs(reference - found))),
        scale=float(np.std(reference)),
    )
