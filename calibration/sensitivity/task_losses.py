r"""How far perturbed outputs are from the float model's: the loss that probes measure, and its second-order form.

For an output z of the float model and a difference d = z' - z, per sample:

* logits: loss KL(softmax z || softmax z'), metric F = diag(p) - p p' with p = softmax z;
* probabilities: loss KL(z || z'), metric F = diag(1/z);
* values: loss ||d||^2 / ||z||^2 (normalized mean square error), metric F = 2 I / ||z||^2;
* labels, n a sample: loss the share of them that differ; e holds 1 / sqrt(n) for each of these.

The loss and its gradient vanish at d = 0, so loss ~ 1/2 d'Fd. ``whitened`` returns e with e'e = 1/2 d'Fd, so that the Gram matrix of
the whitened differences of two layers is their second-order interaction: 1/2 d_i'F d_j = e_i'e_j.

An output that is judged in parts has the sum of their losses, each by its kind; with units, a value's loss is

    mean over the columns of mean((d / unit)^2),

the unit being the column's spread over the data, so that scores in 0..1 are not drowned by the boxes beside them. Rows without an order of
their own are matched first, and weighted by their scores, which may be an output beside that of the boxes.

The loss of several outputs is their weighted mean, sum_k w_k loss_k / sum_k w_k over those that are not ignored; each output's e is scaled
by sqrt(w_k / sum w), so that e'e stays the second-order form of that mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.kinds.detections import matched
from calibration.accuracy.kinds.part import Part
from calibration.accuracy.measures.classes import by_class
from calibration.accuracy.measures.masks import mask_of, masking_of
from calibration.accuracy.measures.sample_blocks import by_sample, doubles
from calibration.accuracy.measures.softmax import log_softmax
from calibration.accuracy.measures.values import WORST_LOSS, as_rows
from calibration.accuracy.metrics import OutputKind
from calibration.accuracy.scores import divergence
from calibration.execution.onnxruntime_session import Array
from calibration.nonfinite import with_far_as_infinite

Doubles = NDArray[np.float64]

LossForm: TypeAlias = OutputKind | tuple[Part, ...]  # of an output: of one piece, or the parts whose losses are added

SKETCH = 4096  # whitened values kept per output: wider ones are folded by a seeded signed sum, which keeps inner products unbiased
_SMALLEST_PROBABILITY = 1e-12


def losses(kinds: Sequence[LossForm], reference: Sequence[Array], perturbed: Sequence[Array], weights: Sequence[float] = ()) -> Doubles:
    """Return the loss of each sample.

    Args:
        kinds: Kind of each output, or its parts.
        reference: The float model's outputs, each (n, ...); those that are ignored may have any shape.
        perturbed: The perturbed model's, same shapes.
        weights: As for ``Comparison``.

    Returns:
        (n,) float64, not negative.
    """
    return Comparison(kinds, reference, weights).losses(perturbed)


def whitened(
    kinds: Sequence[LossForm], reference: Sequence[Array], perturbed: Sequence[Array], weights: Sequence[float] = ()
) -> NDArray[np.float32]:
    """Return e with e'e = 1/2 d'Fd for each sample.

    Args:
        kinds: Kind of each output, or its parts.
        reference: The float model's outputs, each (n, ...).
        perturbed: The perturbed model's, same shapes.
        weights: As for ``Comparison``.

    Returns:
        (n, k) float32, k the number of output values of a sample, or SKETCH for each wider output.
    """
    return Comparison(kinds, reference, weights).whitened(perturbed)


class Comparison:
    """Compares many perturbed outputs with the same float outputs. Read-only after construction."""

    def __init__(self, kinds: Sequence[LossForm], reference: Sequence[Array], weights: Sequence[float] = ()) -> None:
        """Compute what depends on the float outputs alone.

        Args:
            kinds: Kind of each output, or its parts.
            reference: The float model's outputs, each (n, ...); those that are ignored may have any shape.
            weights: Of each output, above 0, ignored ones too; only ratios count. None: all weigh the same.
        """
        parts = list(zip(kinds, reference, strict=True))
        given = [
            0.0 if kind is OutputKind.IGNORE else float(weight) for kind, weight in zip(kinds, weights or [1.0] * len(kinds), strict=True)
        ]
        self._shares = [weight / (sum(given) or 1.0) for weight in given]
        self._beside = [_beside(kind) for kind in kinds]
        self._outputs: list[_Output | None] = [
            None if kind is OutputKind.IGNORE else _output(kind, _joined(value, [reference[index] for index in beside]))
            for (kind, value), beside in zip(parts, self._beside, strict=True)
        ]
        self._samples = len(next((value for kind, value in parts if kind is not OutputKind.IGNORE), reference[0]))

    def losses(self, perturbed: Sequence[Array]) -> Doubles:
        """Return the loss of each sample, (n,) float64."""
        parts = [share * output.loss(value) for share, output, value in self._weighted(perturbed)]
        return np.asarray(sum(parts, np.zeros(self._samples)))

    def whitened(self, perturbed: Sequence[Array]) -> NDArray[np.float32]:
        """Return e, (n, k) float32; zero in a sample whose outputs are not finite."""
        parts = [np.sqrt(share) * _fold(output.whitened(value)) for share, output, value in self._weighted(perturbed)]
        e = np.concatenate(parts, axis=1).astype(np.float32) if parts else np.zeros((self._samples, 1), dtype=np.float32)
        if not np.isfinite(e).all():
            e[~np.isfinite(e).all(axis=1)] = 0.0
        return e

    def _weighted(self, perturbed: Sequence[Array]) -> Iterator[tuple[float, _Output, Array]]:
        for share, output, value, beside in zip(self._shares, self._outputs, perturbed, self._beside, strict=True):
            if output is not None:
                yield share, output, _joined(value, [perturbed[index] for index in beside])


class _Output(Protocol):
    """One output of the float model."""

    def loss(self, perturbed: Array) -> Doubles:
        """Return the loss of each sample, (n,)."""

    def whitened(self, perturbed: Array) -> Doubles:
        """Return e of each sample, (n, values of a sample)."""


class _Logits:
    def __init__(self, reference: Array) -> None:
        self._reference = reference

    def loss(self, perturbed: Array) -> Doubles:
        return divergence(OutputKind.LOGITS, self._reference, perturbed)

    def whitened(self, perturbed: Array) -> Doubles:
        z, p, impossible = self._known
        with np.errstate(invalid="ignore"):
            x = by_class(perturbed)
            d = x - z
            d[np.isposinf(z) & (x == z)] = 0.0
            d[impossible] = 0.0
            d -= (p * d).sum(axis=-1, keepdims=True)
            d *= np.sqrt(p / (2.0 * z.shape[1]))
        return d.reshape(len(d), -1)

    @cached_property
    def _known(self) -> tuple[Doubles, Doubles, tuple[NDArray[np.int64], ...]]:
        """Logits and probabilities, (n, predictions of one sample, classes), and where a mask's classes are, which count for nothing."""
        z = by_class(self._reference)
        p = np.exp(log_softmax(z))
        return z, p, np.nonzero(p == 0.0)


class _Probabilities:
    def __init__(self, reference: Array) -> None:
        self._reference = reference

    def loss(self, perturbed: Array) -> Doubles:
        return divergence(OutputKind.PROBABILITIES, self._reference, perturbed)

    def whitened(self, perturbed: Array) -> Doubles:
        p = by_class(self._reference)
        e: Doubles = (by_class(perturbed) - p) / np.sqrt(2.0 * p.shape[1] * np.maximum(p, _SMALLEST_PROBABILITY))
        return e.reshape(len(e), -1)


class _Values:
    def __init__(self, reference: Array) -> None:
        self._reference = reference

    @cached_property
    def _norms(self) -> Doubles:
        """The norm of each sample, (n, 1)."""
        z = doubles(as_rows(self._reference))
        mask = mask_of(z)
        kept = z if mask is None else np.where(mask.hidden, 0.0, z)
        square = np.einsum("ij,ij->i", kept, kept)
        usual = float(square[square > 0].mean()) if (square > 0).any() else 1.0
        return np.sqrt(np.where(square > 0, square, usual))[:, None]  # a sample of zeros is measured as the loss measures it

    def loss(self, perturbed: Array) -> Doubles:
        return divergence(OutputKind.VALUES, self._reference, perturbed)

    def whitened(self, perturbed: Array) -> Doubles:
        z, x = doubles(as_rows(self._reference)), doubles(as_rows(perturbed))
        with np.errstate(invalid="ignore"):
            d: Doubles = x - z
        if (mask := mask_of(z)) is not None:
            d[mask.alike(x)] = 0.0
        d /= self._norms
        return d


class _Labels:
    def __init__(self, reference: Array) -> None:
        self._reference = reference

    def loss(self, perturbed: Array) -> Doubles:
        return divergence(OutputKind.LABELS, self._reference, perturbed)

    def whitened(self, perturbed: Array) -> Doubles:
        differs = (self._reference != perturbed).reshape(len(self._reference), -1)
        return np.asarray(differs / np.sqrt(max(differs.shape[1], 1)), dtype=np.float64)


class _Columns:
    """Values in units of the spread of each column, or of all of them."""

    def __init__(self, part: Part, reference: Array) -> None:
        self._part = part
        self._reference = reference
        self._units = np.asarray(part.units)
        self._masking = masking_of(reference, self._columns)

    def loss(self, perturbed: Array) -> Doubles:
        square = by_sample(self._square, self._reference, perturbed)
        return np.asarray(np.minimum(np.nan_to_num(square, nan=WORST_LOSS, posinf=WORST_LOSS), WORST_LOSS))

    def whitened(self, perturbed: Array) -> Doubles:
        return self._whitened(self._reference, perturbed)

    def _square(self, reference: Array, perturbed: Array) -> Doubles:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.einsum("ij,ij->i", *(self._whitened(reference, perturbed),) * 2), dtype=np.float64)

    def _whitened(self, reference: Array, perturbed: Array) -> Doubles:
        z, x = self._columns(reference), self._columns(perturbed)
        with np.errstate(invalid="ignore"):
            d = x - z
        if self._masking is not None:
            d[self._masking.of(z).alike(x)] = 0.0
        d /= self._units * np.sqrt(max(z.shape[1] * z.shape[2], 1))
        return d.reshape(len(d), -1)

    def _columns(self, values: Array) -> Doubles:
        return with_far_as_infinite(np.ascontiguousarray(self._part.in_columns(values)))


class _Rows:
    """Rows without an order of their own, weighted by the scores."""

    def __init__(self, part: Part, reference: Array) -> None:
        self._part = part
        self._z = np.asarray(reference, dtype=np.float64)
        self._units = np.asarray(part.units)
        score = np.clip(self._z[:, :, part.places[0]], 0.0, None)
        total = np.maximum(score.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        self._root = np.sqrt(score / total / self._z.shape[2])[:, :, None]

    def loss(self, perturbed: Array) -> Doubles:
        square = (self.whitened(perturbed) ** 2).sum(axis=1)
        return np.asarray(np.minimum(np.nan_to_num(square, nan=WORST_LOSS, posinf=WORST_LOSS), WORST_LOSS))

    def whitened(self, perturbed: Array) -> Doubles:
        x = np.asarray(perturbed, dtype=np.float64)
        d = (matched(self._part, self._z, x) - self._z) / self._units * self._root
        return np.asarray(d.reshape(len(d), -1))


class _OfPart:
    """The part of an output that is read by its kind alone, its classes on the last axis."""

    def __init__(self, part: Part, reference: Array) -> None:
        self._part = part
        self._inner = _BY_KIND[part.kind](self._own(reference))

    def loss(self, perturbed: Array) -> Doubles:
        return self._inner.loss(self._own(perturbed))

    def whitened(self, perturbed: Array) -> Doubles:
        return self._inner.whitened(self._own(perturbed))

    def _own(self, values: Array) -> Array:
        own = self._part.of(values)
        return own if self._part.axis is None else np.ascontiguousarray(np.moveaxis(own, self._part.axis, -1))


class _Sum:
    """An output in parts."""

    def __init__(self, parts: Sequence[Part], reference: Array) -> None:
        self._parts = [_part(part, reference) for part in parts]

    def loss(self, perturbed: Array) -> Doubles:
        return np.asarray(sum((part.loss(perturbed) for part in self._parts[1:]), self._parts[0].loss(perturbed)))

    def whitened(self, perturbed: Array) -> Doubles:
        return np.concatenate([_fold(part.whitened(perturbed)) for part in self._parts], axis=1)


def _output(form: LossForm, reference: Array) -> _Output:
    if isinstance(form, OutputKind):
        return _BY_KIND[form](reference)
    return _Sum(form, reference)


def _beside(form: LossForm) -> tuple[int, ...]:
    """Return the outputs whose columns stand behind those of an output."""
    return () if isinstance(form, OutputKind) else tuple(index for part in form for index in part.beside)


def _joined(values: Array, others: Sequence[Array]) -> Array:
    """Return rows of boxes, (samples, rows, 4) but for axes of one, with the columns of other outputs of the same rows behind them."""
    if not others:
        return values
    boxes = values.reshape(len(values), -1, 4)
    return np.concatenate([boxes, *(one.reshape(*boxes.shape[:2], -1) for one in others)], axis=2)


def _part(part: Part, reference: Array) -> _Output:
    if part.kind is OutputKind.DETECTIONS:
        return _Rows(part, reference)
    return _Columns(part, reference) if part.units else _OfPart(part, reference)


_BY_KIND: Mapping[OutputKind, Callable[[Array], _Output]] = {
    OutputKind.LOGITS: _Logits,
    OutputKind.PROBABILITIES: _Probabilities,
    OutputKind.VALUES: _Values,
    OutputKind.SCORES: _Values,
    OutputKind.EMBEDDING: _Values,
    OutputKind.REGRESSION: _Values,
    OutputKind.DETECTIONS: _Values,
    OutputKind.LABELS: _Labels,
}


def _fold(e: Doubles) -> Doubles:
    width = e.shape[1]
    if width <= SKETCH:
        return e
    signs = np.random.default_rng(width).integers(0, 2, width) * 2 - 1  # the same for every layer, so that inner products survive
    rows = -(-width // SKETCH)
    padded = np.zeros((len(e), rows * SKETCH))
    padded[:, :width] = e * signs
    return np.asarray(padded.reshape(len(e), rows, SKETCH).sum(axis=1))
