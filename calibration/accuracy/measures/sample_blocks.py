"""Walks over large outputs some samples at a time: what is computed in float64 takes several times the room of the outputs themselves.

What is told of all samples together, such as a spread or a mask, is gathered block by block first; what is told of each sample then needs
its own block alone. Outputs of few values are one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from calibration.nonfinite import with_far_as_infinite

Array = NDArray[np.generic]
Doubles = NDArray[np.float64]

BLOCK_BYTES = 4 << 20  # of one array of a block in float64; some ten of them are alive at once


def sample_slices(values: Array) -> Iterator[slice]:
    """Yield slices of the first axis of an array, (samples, ...), that cover it in order: about BLOCK_BYTES each, at least one sample."""
    size = max(BLOCK_BYTES // (8 * max(values[:1].size, 1)), 1)
    for start in range(0, len(values), size):
        yield slice(start, start + size)


def by_sample(measure: Callable[..., Doubles], *arrays: Array) -> Doubles:
    """Return what a measure tells of each sample, (samples,), with few of them in float64 at a time.

    Args:
        measure: Returns one value a sample of the same samples of each array; no sample's value depends on the others.
        arrays: Each (samples, ...), at least one sample; the first is the largest.
    """
    return np.concatenate([measure(*(array[part] for array in arrays)) for part in sample_slices(arrays[0])])


def doubles(values: Array) -> Doubles:
    """Return values in float64, those at the end of float32's range as infinities."""
    return with_far_as_infinite(np.asarray(values, dtype=np.float64))
