r"""Latency of any assignment, predicted from few measurements, with conversions between neighbours of different precision.

    T(S) = T(baseline) - sum over layer precisions d of gain_d + kappa * converted(S) + sum over precisions p of overhead_p * |S_p|

* gain_d: time of the layer's own kernel in the baseline engine minus that in the one-format engine of the precision, from the runtime's
  profile;
* converted(S): elements that are stored in another form than they are written in. each format that inputs are rounded to is a
  form of its own, all else is floats, precisions whose kernels round too: those read floats;
* kappa: milliseconds for one such element, fitted to the timed trials (least squares weighted by the errors of their timings, with the
  first guess as a prior; not negative);
* overhead_p: what the above leaves unexplained of the engine with most layers in p, for one layer.

Gains of single layers alone do not predict anything here: what a layer saves depends on whether its neighbours are quantized too.

Where the runtime names its kernels, what lies between layers is read off profiles instead (``times``): the model then has terms of its own
in place of kappa, and knows its error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.search_space import QuantizedLayers

FIRST_GUESS_MS = 1.5e-6  # of converting one element on a processor, before any mixed engine was timed
TIMING_ERROR = 0.01  # of a timed ratio, about
FLOATS = 0  # the form of a tensor that is not quantized
LEAST_RATIO = 0.01  # that is ever predicted: sums of fitted terms know no bound


@dataclass(frozen=True, slots=True)
class TensorEdge:
    """A tensor between layers."""

    producer: str | None  # the layer that writes it in its own form; None if it is written as floats
    readers: tuple[str, ...]  # the layers that read it in their own form
    float_readers: bool  # whether something else reads it, always as floats
    elements: int  # of one timed call
    is_fused: bool = False  # the kernel that writes it writes the one form that all of its readers take, whatever its own


@dataclass(frozen=True, slots=True)
class Timed:
    """A timed assignment."""

    quantized: QuantizedLayers
    ratio: float  # of the baseline's latency
    error: float = 0.0  # standard error of the ratio


class Term(Protocol):
    """A part of an engine's latency that depends on a few layers at once. The baseline engine has 0 of it."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it depends on, each once."""

    def milliseconds(self, forms: Sequence[int]) -> float:
        """Return what it adds to the baseline's latency.

        Args:
            forms: Of each of ``layers``, as ``form_of`` has it.
        """


@dataclass(frozen=True, slots=True)
class EdgeTerm:
    """The conversions of a tensor, by its elements alone."""

    edge: TensorEdge
    conversion_ms: float  # of one element

    @property
    def layers(self) -> tuple[str, ...]:
        """Its producer and its readers."""
        return tuple(dict.fromkeys((*(() if self.edge.producer is None else (self.edge.producer,)), *self.edge.readers)))

    def milliseconds(self, forms: Sequence[int]) -> float:
        """Return what its conversions take."""
        form = dict(zip(self.layers, forms, strict=True))
        read = {form[layer] for layer in self.edge.readers}
        if self.edge.float_readers:
            read.add(FLOATS)
        written = FLOATS if self.edge.producer is None else form[self.edge.producer]
        return self.conversion_ms * self.edge.elements * conversions(written, read, is_fused=self.edge.is_fused)


@dataclass(frozen=True, slots=True)
class TimeModel:
    """Predicts the latency of an assignment as a ratio to the baseline's."""

    baseline_ms: float
    gain_ms: Mapping[LayerPrecision, float]
    edges: tuple[TensorEdge, ...]
    conversion_ms: float  # kappa
    overhead_ms: Mapping[Precision, float]  # of one layer in the precision
    local: tuple[Term, ...] | None = None  # in place of kappa's conversions, where kernels tell
    certainty: Callable[[QuantizedLayers], float] | None = None  # standard error of a predicted ratio; None: not known

    @property
    def terms(self) -> tuple[Term, ...]:
        """What depends on several layers at once."""
        if self.local is not None:
            return self.local
        return tuple(EdgeTerm(edge, self.conversion_ms) for edge in self.edges)

    def ratio(self, quantized: QuantizedLayers) -> float:
        """Return the predicted latency over the baseline's, at least ``LEAST_RATIO``.

        Args:
            quantized: The precision of each quantized layer.
        """
        return max(float(self.milliseconds(quantized) / self.baseline_ms), LEAST_RATIO)

    def milliseconds(self, quantized: QuantizedLayers) -> float:
        """Return what the terms add up to, which may be less than any engine takes; see ``ratio``."""
        spent = sum(self.cost_ms(LayerPrecision(layer, precision)) for layer, precision in quantized.items())
        return self.baseline_ms + spent + sum(term_ms(term, quantized) for term in self.terms)

    def error(self, quantized: QuantizedLayers) -> float:
        """Return the standard error of a predicted ratio; 0 where that is not known.

        Args:
            quantized: The precision of each quantized layer.
        """
        return 0.0 if self.certainty is None else self.certainty(quantized)

    def cost_ms(self, layer_precision: LayerPrecision) -> float:
        """Return what a layer precision adds by itself, conversions apart; negative where it saves time."""
        return self.overhead_ms.get(layer_precision.precision, 0.0) - self.gain_ms.get(layer_precision, 0.0)


def term_ms(term: Term, quantized: QuantizedLayers) -> float:
    """Return what a term adds to an engine with these quantized layers."""
    return term.milliseconds([form_of(quantized.get(layer)) for layer in term.layers])


def unblamed(model: TimeModel, trials: Sequence[Timed]) -> TimeModel:
    """Return the model without the overheads of precisions whose engine with most layers in them is slower than the baseline.

    Such an engine says that some of its layers do not pay, not which: shared out evenly, its overhead condemns those that do.

    Args:
        model: Fitted to the trials.
        trials: What was timed.
    """
    found = dict(model.overhead_ms)
    for precision in found:
        most = max(trials, key=lambda trial: sum(item is precision for item in trial.quantized.values()))
        if most.ratio > 1.0:
            found[precision] = min(found[precision], 0.0)
    return replace(model, overhead_ms=found)


def form_of(precision: Precision | None) -> int:
    """Return the form in which a layer of this precision, None for the baseline's, stores what it reads: the element type, or floats."""
    return precision.element_type if precision is not None and precision.rounds_inputs else FLOATS


def conversions(written: int, read: Collection[int], *, is_fused: bool) -> int:
    """Return how often a tensor is stored beyond the once that it is written.

    Args:
        written: The form in which its producer writes it, unless ``is_fused``.
        read: The forms in which it is read, each once.
        is_fused: Whether the kernel that writes it writes any one form that is read.
    """
    return max(len(read) - 1, 0) if is_fused else len(read) - (written in read)


def converted(edges: Sequence[TensorEdge], quantized: QuantizedLayers) -> int:
    """Return the elements that an engine with these quantized layers converts."""
    total = 0
    for edge in edges:
        read = {form_of(quantized.get(layer)) for layer in edge.readers}
        if edge.float_readers:
            read.add(FLOATS)
        written = FLOATS if edge.producer is None else form_of(quantized.get(edge.producer))
        total += edge.elements * conversions(written, read, is_fused=edge.is_fused)
    return total


def fit(
    baseline_ms: float,
    gain_ms: Mapping[LayerPrecision, float],
    edges: Sequence[TensorEdge],
    trials: Sequence[Timed],
    *,
    first_guess_ms: float = FIRST_GUESS_MS,
) -> TimeModel:
    """Return the model that explains the timed trials best.

    Args:
        baseline_ms: Median latency of the baseline engine.
        gain_ms: What each layer precision saves in the layer's own kernel.
        edges: The tensors between layers.
        trials: What was timed; for each precision, the assignment with most layers in it fixes the overhead.
        first_guess_ms: Milliseconds of converting one element, which holds where no trial tells; above 0.
    """
    bare = TimeModel(baseline_ms, gain_ms, tuple(edges), 0.0, {})
    precisions = tuple(dict.fromkeys(precision for trial in trials for precision in trial.quantized.values()))
    if not precisions:
        return replace(bare, conversion_ms=first_guess_ms)
    counts = np.array([[Counter(trial.quantized.values())[precision] for precision in precisions] for trial in trials], dtype=np.float64)
    fixing = list(dict.fromkeys(int(index) for index in np.argmax(counts, axis=0)))
    unexplained = np.array([trial.ratio * baseline_ms - bare.milliseconds(trial.quantized) for trial in trials])
    stored = np.array([float(converted(edges, trial.quantized)) for trial in trials])

    # The engines in ``fixing`` fix the overheads for any kappa. With those put in, what is unexplained of every other trial is linear in
    # kappa alone.
    solve = np.linalg.pinv(counts[fixing])
    share = counts @ solve
    elements = stored - share @ stored[fixing]
    excess = unexplained - share @ unexplained[fixing]
    # Of a trial that was timed less well than usual: by what its error adds to the variance of any timing.
    certainty = TIMING_ERROR**2 / (TIMING_ERROR**2 + np.array([trial.error for trial in trials]) ** 2)
    weight = (TIMING_ERROR * baseline_ms / first_guess_ms) ** 2  # of the first guess, as if it were one more trial
    kappa = max(0.0, float((certainty * elements @ excess + weight * first_guess_ms) / (certainty * elements @ elements + weight)))
    overheads = solve @ (unexplained[fixing] - kappa * stored[fixing])
    return replace(bare, conversion_ms=kappa, overhead_ms=dict(zip(precisions, overheads.tolist(), strict=True)))
