r"""Which factors between layers leave the least noise when the tensor and the weights of its readers are rounded to 8 bits.

A tensor x with one scale is read by a layer with a scale for each output channel o. With x'_c = x_c / s_c and w'_oc = w_oc s_c, which
together compute the same, the noise of rounding, relative to what the layer computes, is

    sum over o of  sum_c (|w'_oc|^2 min(R^2 / 12 q^2, m'_c)  +  m'_c min(n M_o^2 / (12 * 127^2), |w'_oc|^2))  /  sum_c |w_oc|^2 m_c

with R the largest |x'|, q the levels of the tensor, M_o the largest weight of o, n the weights of a channel, m_c the mean square of x_c:
what is rounded to zero loses all of itself and no more. Candidates are s_c = r_c^a / |w_c|^(1 - a) with r_c the largest |x_c|, as in
SmoothQuant (arXiv 2211.10438), whose a = 1/2 with the sizes of weights alone is cross-layer equalization (arXiv 1906.04721). Factors are
powers of two, so that they are exact, and never make the tensor larger.

A channel that is rarely used looks small on few samples, and divided by that would be the largest on others: the noise is that of more
samples than r_c is of. Of a channel that no sample uses only the weights are known: it gets the factor that makes them as large as those
of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.graph_passes.equalization.channel_statistics import SeenChannels

Float = NDArray[np.float64]

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # the exponent a
_FARTHEST = 2.0**12  # between two factors
_TINY = 1e-30


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer that reads the tensor.

    ``weight`` is (outputs, channels of a group, weights of a channel); output o reads the channels of group ``o * groups // outputs``.
    """

    weight: NDArray[np.float32]
    groups: int
    seen: SeenChannels  # of its input, (channels,)


def best_factors(readers: Sequence[Reader]) -> tuple[Float, float]:
    """Return a factor s for each channel, powers of two, and the noise with it as a share of the noise without; ones where none helps.

    Args:
        readers: At least one; all see the same channels.
    """
    ones = np.ones(len(readers[0].seen.judged_on.largest))
    before = sum(_noise(one, ones) for one in readers)
    best, least = ones, before
    few = np.max([one.seen.chosen_from.largest for one in readers], axis=0)
    largest = np.max([one.seen.judged_on.largest for one in readers], axis=0)
    sizes = np.sqrt(np.sum([_sizes(one) for one in readers], axis=0))
    for share in _SHARES:
        factors = _even(few, sizes, share)
        factors = factors * _to_keep_the_range(largest, factors)
        found = sum(_noise(one, factors) for one in readers)
        if found < least:
            best, least = factors, found
    return best, (least / before if before > 0.0 else 1.0)


def _even(largest: Float, sizes: Float, share: float) -> Float:
    """Return the factors of one exponent, powers of two; what no layer reads gets the largest."""
    is_read, is_used = sizes > _TINY, (largest > _TINY) & (sizes > _TINY)
    if not np.any(is_used):
        return np.ones(len(largest))
    read = np.maximum(sizes, _TINY)
    raw = np.where(is_used, np.maximum(largest, _TINY) ** share / read ** (1.0 - share), 0.0)
    usual = np.median((raw * sizes)[is_used])  # of the weights, when scaled
    like_others = np.clip(usual / read, raw[is_used].min(), raw.max())
    raw = np.where(is_used, raw, np.where(is_read, like_others, raw.max()))
    raw = np.maximum(raw, raw.max() / _FARTHEST)
    return np.asarray(np.exp2(np.round(np.log2(raw))), dtype=np.float64)


def _to_keep_the_range(largest: Float, factors: Float) -> float:
    """Return the power of two with which factors do not make the tensor larger: FP16 holds what it held."""
    growth = np.max(largest / factors) / max(largest.max(), _TINY)
    return float(np.exp2(np.ceil(np.log2(growth)))) if growth > 0.0 else 1.0


def _noise(reader: Reader, factors: Float) -> float:
    seen, taps = reader.seen.judged_on, reader.weight.shape[2]
    energies, own, squares = _energies(reader), _for_outputs(factors, reader), _for_outputs(seen.mean_square, reader)
    energy, square = energies * own**2, squares / own**2
    tensor = np.max(seen.largest / factors) / (127.0 if seen.is_signed else 255.0)
    weights = np.max(np.abs(reader.weight).max(axis=2) * own, axis=1, keepdims=True) / 127.0
    noise = (energy * np.minimum(tensor**2 / 12.0, square) + square * np.minimum(taps * weights**2 / 12.0, energy)).sum(axis=1)
    signal = (energies * squares).sum(axis=1)
    return float(np.sum(noise / np.where(signal > 0.0, signal, np.inf)))


def _energies(reader: Reader) -> Float:
    """Return the sum of squares of each output's weights of each channel of its group, (outputs, channels of a group)."""
    return np.asarray(np.einsum("oct,oct->oc", reader.weight, reader.weight, dtype=np.float64))


def _sizes(reader: Reader) -> Float:
    """Return the sum of squares of all weights of each channel, (channels,)."""
    energies = _energies(reader)
    return np.asarray(energies.reshape(reader.groups, -1, energies.shape[1]).sum(axis=1).reshape(-1))


def _for_outputs(numbers: Float, reader: Reader) -> Float:
    """Return of a number for each channel those that each output reads, (outputs, channels of a group)."""
    return np.repeat(numbers.reshape(reader.groups, -1), len(reader.weight) // reader.groups, axis=0)
