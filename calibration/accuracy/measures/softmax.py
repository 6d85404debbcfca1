r"""Logarithms of softmax probabilities, as limits where logits are infinite.

A class whose logit is -inf is impossible: its probability is 0 and the others share 1 as if it were not there. Where a logit is +inf, the
classes that have it share 1 evenly. A row of nothing but -inf, as a mask leaves where it hides everything, makes no class possible: all
probabilities are 0. A NaN makes its whole row NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def log_softmax(logits: Doubles) -> Doubles:
    """Return the logarithms of the probabilities, of the shape of ``logits``, (..., classes)."""
    top = logits.max(axis=-1, keepdims=True)
    if np.isfinite(top).all():
        shifted = logits - top
    else:
        with np.errstate(invalid="ignore"):
            shifted = np.where(np.isposinf(top), np.where(np.isposinf(logits), 0.0, -np.inf), logits - np.where(np.isinf(top), 0.0, top))
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted - np.where(np.isneginf(total), 0.0, total), dtype=np.float64)


def without_classes(log_p: Doubles) -> NDArray[np.bool_]:
    """Return which rows make no class possible, (...), given what ``log_softmax`` returned."""
    return np.asarray(np.isneginf(log_p).all(axis=-1))
