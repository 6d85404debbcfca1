r"""How far perturbed outputs are from the float model's: the loss that probes measure, and its second-order form.

For an output z of the float model and a difference d = z' - z, per sample:

* logits: loss KL(softmax z || softmax z'), metric F = diag(p) - p p' with p = softmax z;
* probabilities: loss KL(z || z'), metric F = diag(1/z);
* values: loss ||d||^2 / ||z||^2 (normalized mean square error), metric F = 2 I / ||z||^2.

The loss and its gradient vanish at d = 0, so loss ~ 1/2 d'Fd. ``whitened`` returns e with e'e = 1/2 d'Fd, so that the Gram matrix of
the whitened differences of two layers is their second-order interaction: 1/2 d_i'F d_j = e_i'e_j. Losses of several outputs add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import OutputKind, by_class, divergence
from calibration.session import Array

_SMALLEST_PROBABILITY = 1e-12
SKETCH = 4096  # whitened values kept per output: wider ones are folded by a seeded signed sum, which keeps inner products unbiased


def losses(kinds: Sequence[OutputKind], reference: Sequence[Array], perturbed: Sequence[Array]) -> NDArray[np.float64]:
    """Return the loss of each sample.

    Args:
        kinds: Kind of each output.
        reference: The float model's outputs, each (n, ...); those that are ignored may have any shape.
        perturbed: The perturbed model's, same shapes.

    Returns:
        (n,) float64, not negative.
    """
    compared = [item for item in zip(kinds, reference, perturbed, strict=True) if item[0] is not OutputKind.IGNORE]
    if not compared:
        return np.zeros(len(reference[0]))
    return np.asarray(np.sum([divergence(*item) for item in compared], axis=0), dtype=np.float64)


def whitened(kinds: Sequence[OutputKind], reference: Sequence[Array], perturbed: Sequence[Array]) -> NDArray[np.float32]:
    """Return e with e'e = 1/2 d'Fd for each sample.

    Args:
        kinds: Kind of each output.
        reference: The float model's outputs, each (n, ...).
        perturbed: The perturbed model's, same shapes.

    Returns:
        (n, k) float32, k the number of output values of a sample, or SKETCH for each wider output.
    """
    parts = []
    for kind, z, changed in zip(kinds, reference, perturbed, strict=True):
        if kind is OutputKind.IGNORE:
            continue
        if kind is OutputKind.VALUES:
            rows = z.reshape(len(z), -1).astype(np.float64)
            e = (changed.reshape(rows.shape).astype(np.float64) - rows) / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        else:
            rows = by_class(z)  # (n, predictions of one sample, classes); the loss is the mean over predictions
            d = by_class(changed) - rows
            if kind is OutputKind.LOGITS:
                p = np.exp(rows - rows.max(axis=-1, keepdims=True))
                p /= p.sum(axis=-1, keepdims=True)
                e = np.sqrt(p / (2.0 * rows.shape[1])) * (d - (p * d).sum(axis=-1, keepdims=True))
            else:
                e = d / np.sqrt(2.0 * rows.shape[1] * np.maximum(rows, _SMALLEST_PROBABILITY))
        parts.append(_fold(e.reshape(len(e), -1)))
    if not parts:
        return np.zeros((len(reference[0]), 1), dtype=np.float32)
    return np.concatenate(parts, axis=1).astype(np.float32)


def _fold(e: NDArray[np.float64]) -> NDArray[np.float64]:
    width = e.shape[1]
    if width <= SKETCH:
        return e
    signs = np.random.default_rng(width).integers(0, 2, width) * 2 - 1  # the same for every layer, so that inner products survive
    rows = -(-width // SKETCH)
    padded = np.zeros((len(e), rows * SKETCH))
    padded[:, :width] = e * signs
    return np.asarray(padded.reshape(len(e), rows, SKETCH).sum(axis=1))
