"""Parts of an output that have a scale of their own: scores in 0..1 that share a tensor with boxes in pixels, as detectors give them.

Judged together, the small part has next to none of the energy: its values may be anything, and the cosine of the whole stays 1. Parts are
told by the float model's outputs: along one axis, some places hold values in 0..1 on all samples, the others do not, and these are at least
APART times as large (root mean square). One part is then judged by itself, relative to its own spread (``calibration.accuracy.metrics``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.sample_blocks import sample_slices

APART = 30.0  # the small part then has at most a thousandth of the energy


def parts_of(reference: NDArray[np.generic]) -> tuple[NDArray[np.bool_], ...]:
    """Return which values of a sample belong to each part, broadcastable to one sample; none where the output is of one piece.

    Args:
        reference: The float model's output, (samples, ...).
    """
    if reference.ndim < 2 or not reference.size or not all(np.isfinite(reference[part]).all() for part in sample_slices(reference)):
        return ()
    best: tuple[float, tuple[NDArray[np.bool_], ...]] = (APART, ())
    for axis in range(1, reference.ndim):
        others = tuple(index for index in range(reference.ndim) if index != axis)
        are_scores = (reference.min(axis=others) >= 0.0) & (reference.max(axis=others) <= 1.0)
        if not are_scores.any() or are_scores.all():
            continue
        energy = sum(np.sum(np.asarray(reference[part], dtype=np.float64) ** 2, axis=others) for part in sample_slices(reference))
        energy = np.asarray(energy) / (reference.size // reference.shape[axis])
        small, large = float(energy[are_scores].mean()), float(energy[~are_scores].mean())
        if small > 0.0 and np.sqrt(large / small) >= best[0]:
            shape = [1] * (reference.ndim - 1)
            shape[axis - 1] = reference.shape[axis]
            best = float(np.sqrt(large / small)), (are_scores.reshape(shape), ~are_scores.reshape(shape))
    return best[1]
