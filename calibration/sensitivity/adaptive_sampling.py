r"""What needs more probes: the tensors, or layer precisions, that leave open on which side of the budget's boundary a layer precision lies.

An engine takes a prefix of the ``hessian`` order. By the second-order estimate the longest one that keeps the budget is the longest whose
sensitivities add up to at most the loss that the budget allows; the *boundary* lies halfway between its last layer precision and the next.
Where not even the first fits, or all do, it is the score of the first, or of the last. What the budget allows is known to a factor of
FACTOR at best, so there are several: one for every prefix that may be the longest. Each precision has an order, and boundaries, of its own.

More probes can change an engine only through layer precisions whose sensitivity lies within CLEAR standard errors of a boundary. Of these,
the tensors that are behind most of the variance are probed again, the largest part first, until what is left of it is below SETTLED.

A tensor's own spread over two or three probes says little. Its variance is averaged with that of all tensors, taken relative to their
means, as if the latter were known from PRIOR probes (the moderated variance of Smyth 2004). Errors of a layer precision's tensors are taken
as independent, as in ``sensitivity_table``.

The losses of layer precisions alone are probed in the same way, a sample a probe, and pairs only among those that an engine inside the
budget may have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision

FACTOR = 4.0
CLEAR = 2.0  # standard errors
SETTLED = 0.1  # of a layer precision's variance
PRIOR = 4  # probes that the spread of all tensors counts for, and tensors that speak for batches of one level

Key = tuple[str, str]  # a layer and a site


@dataclass(frozen=True, slots=True)
class ProbedTensor:
    """What the probes of one tensor of a layer say of one precision."""

    layer: str
    site: str
    precision: Precision
    curvatures: tuple[float, ...]  # v'Hv of each probe, two or more
    share: float  # sensitivity of a curvature of 1

    @property
    def sensitivity(self) -> float:
        """Second-order loss of rounding this tensor alone."""
        return self.share * float(np.mean(self.curvatures))


def undecided(tensors: Sequence[ProbedTensor], allowed: float) -> frozenset[Key]:
    """Return the tensors, (layer, site), that are worth another probe.

    Args:
        tensors: What is known of every tensor, once for each precision that rounds it.
        allowed: Loss that the budget allows, at least 0.
    """
    spread = _relative_variance(tensors)
    wanted: set[Key] = set()
    for precision in dict.fromkeys(tensor.precision for tensor in tensors):
        layer_precisions: dict[str, list[ProbedTensor]] = {}
        for tensor in tensors:
            if tensor.precision is precision:
                layer_precisions.setdefault(tensor.layer, []).append(tensor)
        scores = {layer: sum(part.sensitivity for part in parts) for layer, parts in layer_precisions.items()}
        edges = boundaries(tuple(scores.values()), allowed)
        for layer, parts in layer_precisions.items():
            variances = {part.site: _variance(part, spread) for part in parts}
            total = sum(variances.values())
            if min(abs(scores[layer] - edge) for edge in edges) <= CLEAR * math.sqrt(total):
                wanted |= {(layer, site) for site in _behind_most(variances, total)}
    return frozenset(wanted)


def undecided_losses(losses: Mapping[LayerPrecision, Sequence[float]], allowed: float) -> frozenset[LayerPrecision]:
    """Return the layer precisions whose loss alone is worth more samples.

    Args:
        losses: Loss of each on two samples or more.
        allowed: Loss that the budget allows, at least 0.
    """
    found = undecided([_of_loss(item, values) for item, values in losses.items()], allowed)
    return frozenset(item for item in losses if (item.layer, item.precision.value) in found)


def within_reach(losses: Mapping[LayerPrecision, Sequence[float]], allowed: float) -> frozenset[LayerPrecision]:
    """Return the layer precisions that an order by loss may take before it leaves what the budget allows; arguments as above."""
    probed = {item: _of_loss(item, values) for item, values in losses.items()}
    spread = _relative_variance(list(probed.values()))
    near: set[LayerPrecision] = set()
    for precision in dict.fromkeys(item.precision for item in probed):
        scores = {item: one.sensitivity for item, one in probed.items() if item.precision is precision}
        last = boundaries(tuple(scores.values()), allowed)[-1]
        near |= {item for item, score in scores.items() if score <= last + CLEAR * math.sqrt(_variance(probed[item], spread))}
    return frozenset(near)


def _of_loss(layer_precision: LayerPrecision, losses: Sequence[float]) -> ProbedTensor:
    return ProbedTensor(layer_precision.layer, layer_precision.precision.value, layer_precision.precision, tuple(losses), 1.0)


def on_one_level(curvatures: Mapping[Key, Sequence[float]]) -> dict[Key, tuple[float, ...]]:
    """Return the curvatures of each tensor as if it had been probed on all batches, those that have been as they are.

    Samples differ in how much anything does to their outputs, and the more so the fewer there are in a batch. A tensor that was probed on
    the first n batches alone is divided by what their level is to that of all, in the mean over the tensors that have all.

    Args:
        curvatures: v'Hv in each of the first batches, one at least; of how many depends on the tensor.
    """
    most = max(map(len, curvatures.values()), default=0)
    whole = np.array([values for values in curvatures.values() if len(values) == most and sum(values) > 0.0])
    found = {}
    for key, values in curvatures.items():
        few = len(values)
        if few < most and len(whole):
            level = float(np.mean(whole[:, :few].mean(axis=1) / whole.mean(axis=1)))
            level = (len(whole) * level + PRIOR) / (len(whole) + PRIOR)
            found[key] = tuple(value / level for value in values)
        else:
            found[key] = tuple(values)
    return found


def boundaries(scores: Sequence[float], allowed: float) -> tuple[float, ...]:
    """Return the scores at which an order by score may leave what the budget allows, ascending.

    Args:
        scores: Predicted loss of each layer precision, one at least.
        allowed: Predicted loss of an engine at the most.
    """
    ordered = sorted(scores)
    totals = list(itertools.accumulate(ordered))
    fewest, most = (sum(total <= allowed * factor for total in totals) for factor in (1 / FACTOR, FACTOR))
    last = len(ordered) - 1
    return tuple((ordered[max(fitting - 1, 0)] + ordered[min(fitting, last)]) / 2 for fitting in range(fewest, most + 1))


def _relative_variance(tensors: Sequence[ProbedTensor]) -> float:
    """Return the mean over tensors of the variance of one probe over the square of their mean."""
    found = [float(np.var(one.curvatures, ddof=1) / np.mean(one.curvatures) ** 2) for one in tensors if np.mean(one.curvatures) > 0.0]
    return float(np.mean(found)) if found else 0.0


def _variance(tensor: ProbedTensor, spread: float) -> float:
    """Return the variance of a tensor's sensitivity."""
    probes = len(tensor.curvatures)
    own, usual = float(np.var(tensor.curvatures, ddof=1)), spread * float(np.mean(tensor.curvatures)) ** 2
    of_one = ((probes - 1) * own + PRIOR * usual) / (probes - 1 + PRIOR)
    return tensor.share**2 * of_one / probes


def _behind_most(variances: dict[str, float], total: float) -> list[str]:
    """Return the largest parts that leave less than SETTLED of the total."""
    taken: list[str] = []
    left = total
    for site, variance in sorted(variances.items(), key=lambda item: (-item[1], item[0])):
        if left <= SETTLED * total:
            break
        taken.append(site)
        left -= variance
    return taken
