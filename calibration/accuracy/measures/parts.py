"""Parts of an output that have a scale of their own: scores in 0..1 that share a tensor with boxes in pixels, as detectors give them.

Judged together, the small part has next to none of the energy: its values may be anything, and the cosine of the whole stays 1. Parts are
told by the float model's outputs: along one axis, some places hold values in 0..1 on all samples, the others do not, and these are at least
APART times as large (root mean square). One part is then judged by itself, relative to its own spread (``calibration.accuracy.metrics``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

APART = 30.0  # the small part then has at most a thousandth of the energy


def parts_of(reference: NDArray[np.generic]) -> tuple[NDArray[np.bool_], ...]:
    """Return which values of a sample belong to each part, broadcastable to one sample; none where the output is of one piece.

    Args:
        reference: The float model's output, (samples, ...).
    """
    values = np.asarray(reference, dtype=np.float64)
    if values.ndim < 2 or not values.size or not np.isfinite(values).all():
        return ()
    best: tuple[float, tuple[NDArray[np.bool_], ...]] = (APART, ())
    for axis in range(1, values.ndim):
        others = tuple(index for index in range(values.ndim) if index != axis)
        are_scores = (values.min(axis=others) >= 0.0) & (values.max(axis=others) <= 1.0)
        if not are_scores.any() or are_scores.all():
            continue
        energy = np.mean(values**2, axis=others)
        small, large = float(energy[are_scores].mean()), float(energy[~are_scores].mean())
        if small > 0.0 and np.sqrt(large / small) >= best[0]:
            shape = [1] * (values.ndim - 1)
            shape[axis - 1] = values.shape[axis]
            best = float(np.sqrt(large / small)), (are_scores.reshape(shape), ~are_scores.reshape(shape))
    return best[1]
