r"""Whether embeddings still find the same neighbours: recall@k of a retrieval of the set in itself, against the float model's.

Each sample asks for the k others that are nearest by the cosine. Its score is the share of those that are the float model's k nearest,

    recall@k = |N_k(engine) and N_k(float)| / k.

An engine's embeddings are compared with each other, as in an index that it built itself. What is as near as the float model's k-th
neighbour counts as one of them, so that copies in the set cannot cost anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.values import as_rows
from calibration.errors import InvalidConfigError

NEIGHBOURS = 10
LEAST_SAMPLES = 8
MOST_SAMPLES = 2048
_TIE = 1e-6  # of cosines, in float32
_ROWS = 512  # samples in one product

Floats = NDArray[np.float32]


def neighbours_kept(reference: NDArray[np.generic], output: NDArray[np.generic], neighbours: int | None = None) -> NDArray[np.float64]:
    """Return the recall@k of each sample, (samples,), 0..1.

    Args:
        reference: (samples, ...), the float model's embeddings.
        output: The same shape.
        neighbours: k; None: NEIGHBOURS, or a quarter of the set where that is less.

    Raises:
        InvalidConfigError: There are too few samples to have neighbours to lose.
    """
    k = neighbours_of(len(reference), neighbours)
    r, x = _normalized(reference), _normalized(output)
    is_known = np.asarray(np.isfinite(x).all(axis=1))
    x = np.where(is_known[:, None], x, 0.0)
    kept = np.empty(len(r))
    for start in range(0, len(r), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(r)))
        theirs, mine = _similarity(r, rows), _similarity(x, rows)
        least = np.partition(theirs, -k, axis=1)[:, -k, None]
        found = np.argpartition(-mine, k - 1, axis=1)[:, :k]
        kept[rows] = (np.take_along_axis(theirs, found, axis=1) >= least - _TIE).mean(axis=1)
    return np.where(is_known, kept, 0.0)


def nearest_kept(reference: NDArray[np.generic], output: NDArray[np.generic]) -> float | None:
    """Return the share of samples, 0..1, that keep their nearest neighbour among the others; None where there are too few to tell.

    Args:
        reference: (samples, ...), the float model's embeddings; of many the first MOST_SAMPLES are looked at.
        output: The same shape.
    """
    if len(reference) < LEAST_SAMPLES:
        return None
    return float(neighbours_kept(reference[:MOST_SAMPLES], output[:MOST_SAMPLES], 1).mean())


def nearest_in_words(share: float) -> str:
    """Return what ``nearest_kept`` says, and what to do about it."""
    return (
        f"{share:.0%} of the samples keep their nearest neighbour among the validation samples; if you search by neighbours, judge by it: "
        "accuracy.metric: retrieval"
    )


def neighbours_of(samples: int, neighbours: int | None) -> int:
    """Return k for a set of so many samples.

    Raises:
        InvalidConfigError: There are too few samples.
    """
    k = neighbours if neighbours is not None else min(NEIGHBOURS, samples // 4)
    if samples < LEAST_SAMPLES or 2 * k > samples - 1:
        raise InvalidConfigError(
            f"accuracy.metric: retrieval of {max(k, 1)} neighbours found with {samples} validation samples, expected at least "
            f"{max(2 * k + 1, LEAST_SAMPLES)}: where half of the set is a neighbour, hardly any can be lost",
            fix="Give more validation samples, or a lower accuracy.measure.neighbours.",
        )
    return k


def _normalized(values: NDArray[np.generic]) -> Floats:
    rows = as_rows(values).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        norm = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        return np.asarray(rows / np.where(norm > 0, norm, 1.0), dtype=np.float32)


def _similarity(values: Floats, rows: NDArray[np.int64]) -> Floats:
    found = values[rows] @ values.T
    found[np.arange(len(rows)), rows] = -np.inf  # nobody is a neighbour of its own
    return found
