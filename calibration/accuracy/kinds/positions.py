"""Positions that an input takes out of the sequence: those that an attention mask hides, or that lie behind a length, do not count."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from calibration.accuracy.kinds.part import Array, Booleans

_MASK = re.compile(r"mask|padding", re.IGNORECASE)
_LENGTH = re.compile(r"len|length|lengths|seq_len|num_frames", re.IGNORECASE)


def counted_positions(inputs: Mapping[str, Array], positions: int) -> Booleans | None:
    """Return which positions of each sample count, (samples, positions); None where no input takes any out.

    An attention mask is an input with "mask" in its name that holds nothing but 0 and 1 for as many positions, 1 where they count; lengths
    are whole numbers, one a sample, none above the number of positions. A sample without a position that counts counts whole.

    Args:
        inputs: By name, each (samples, ...).
        positions: Of the output.
    """
    for name, array in inputs.items():
        flat = array.reshape(len(array), -1)
        if _MASK.search(name) and flat.shape[1] == positions and bool(np.isin(flat, (0, 1)).all()) and not bool(flat.all()):
            return np.asarray(flat != 0)
    for name, array in inputs.items():
        flat = array.reshape(len(array), -1)
        if _LENGTH.search(name) and array.dtype.kind in "iu" and flat.shape[1] == 1 and flat.size:
            lengths = flat.astype(np.int64)
            if lengths.min() >= 1 and lengths.max() <= positions and lengths.min() < positions:
                return np.asarray(np.arange(positions)[None, :] < lengths)
    return None
