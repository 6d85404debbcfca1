"""What is odd about samples by their content alone: constant ones, copies, and samples that two sets share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

MIN_ELEMENTS = 8  # of a sample: shorter ones repeat, or hold one value, by nature
_DIGEST_BYTES = 16


def constant_samples(inputs: Mapping[str, Array]) -> int:
    """Return how many samples hold one and the same value throughout each input.

    An input of one value a sample is constant only if all samples have the same; samples of fewer than MIN_ELEMENTS elements in all never
    are.

    Args:
        inputs: (samples, ...) by name.
    """
    if _elements(inputs) < MIN_ELEMENTS:
        return 0
    is_constant = np.ones(_count(inputs), dtype=np.bool_)
    for array in inputs.values():
        rows = array.reshape(len(array), -1)
        if rows.shape[1] == 1:
            is_constant &= bool((rows == rows[0]).all())
        for index in np.flatnonzero(is_constant):  # one at a time: a set may fill most of the memory
            is_constant[index] = (rows[index] == rows[index, 0]).all()
    return int(is_constant.sum())


def fingerprints(inputs: Mapping[str, Array]) -> tuple[bytes, ...]:
    """Return a digest of each sample, equal where all its inputs are equal byte for byte; none for samples of too few elements.

    Args:
        inputs: (samples, ...) by name.
    """
    if _elements(inputs) < MIN_ELEMENTS:
        return ()
    found = []
    for index in range(_count(inputs)):
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for name in sorted(inputs):
            sample = np.ascontiguousarray(inputs[name][index])
            digest.update(f"{name}\0{sample.dtype.str}{sample.shape}\0".encode())
            digest.update(sample.tobytes())
        found.append(digest.digest())
    return tuple(found)


def copies(digests: Sequence[bytes]) -> int:
    """Return how many samples are copies of an earlier one."""
    return sum(count - 1 for count in Counter(digests).values())


def first_of_each(digests: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the indices of the samples that are no copy of an earlier one, in order."""
    places: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        places.setdefault(digest, index)
    return np.array(sorted(places.values()), dtype=np.int64)


def shared(digests: Sequence[bytes], others: Sequence[bytes]) -> int:
    """Return how many of the samples are among the others."""
    known = frozenset(others)
    return sum(digest in known for digest in digests)


def _elements(inputs: Mapping[str, Array]) -> int:
    return sum(array[0].size for array in inputs.values() if len(array))


def _count(inputs: Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())))
