r"""The time model of a runtime that names its kernels: what profiles say of an engine, corrected by what engines took.

    T(S) = T(baseline) + sum over groups g of (m_g + theta_g) * x_g(S)

* x_g(S): milliseconds that the profiles give for an engine with the quantized layers S, beyond the baseline's: what the layers' own
  kernels save, each kind of conversion at the borders, other kernels, what a layer takes longer between layers that are not as it is; and
  the number of quantized layers, for what none of these sees;
* m_g: how far a group is believed before anything was timed: 1, or 0 for the last two;
* theta_g: fitted to the timed engines with a normal prior around 0 (ridge regression, Hoerl and Kennard 1970).

Which groups have a theta of their own is chosen from a few nested models, by the error with which each timed engine is predicted from all
others (Allen's PRESS, 1974): r_i / (1 - H_ii) with H the fit's hat matrix. Each engine counts by how well it was timed, in the fit and
here: a miss that the error of its own timing explains is none of the model's. A larger model must be better by ``WORTH``. The error of a
prediction is that of the thetas (their posterior covariance) and the noise, which is that leave-one-out error, shrunk to a first guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import TIMING_ERROR, TensorEdge, Term, Timed, TimeModel, form_of, term_ms
from engine_builder.search.times.borders import BorderTerm
from engine_builder.search.times.kernel_sites import NeighbourTerm, SiteTerm
from engine_builder.search.times.layouts import Step

GAINS, OTHERS, NEIGHBOURS, LAYERS, CONVERSIONS = "gains", "other kernels", "neighbours", "layers", "conversions"
GROUPS = (GAINS, OTHERS, NEIGHBOURS, LAYERS, *(step.value for step in Step))
BELIEVED = {NEIGHBOURS: 0.0, LAYERS: 0.0}  # m_g; 1 for all others
SPREAD = {GAINS: 0.15, OTHERS: 0.5, NEIGHBOURS: 0.5}  # of theta_g, before anything is timed
SPREAD_OF_CONVERSIONS = 0.3
SPREAD_OF_LAYERS = 0.2  # of the baseline's latency, over all layers together

# What is fitted, from the profiles alone to everything.
MODELS: Mapping[str, tuple[str, ...]] = {
    "profiles": (),
    "conversions": (CONVERSIONS,),
    "conversions and layers": (CONVERSIONS, LAYERS),
    "conversions, layers and gains": (CONVERSIONS, LAYERS, GAINS),
    "all but kinds": (CONVERSIONS, LAYERS, GAINS, OTHERS, NEIGHBOURS),
    "all": (LAYERS, GAINS, OTHERS, NEIGHBOURS, *(step.value for step in Step)),
}
WORTH = 0.05  # by which a larger model's leave-one-out error must be less
FIRST_ERROR, FIRST_TRIALS = 0.05, 3.0  # the noise before anything was timed counts as much as so many engines
ROUNDS = 3  # noise and fit depend on each other


@dataclass(frozen=True, slots=True)
class KernelCosts:
    """What the profiles say."""

    baseline_ms: float  # of the baseline engine's kernels
    gain_ms: Mapping[LayerPrecision, float]  # of each layer's own kernel, against the baseline's
    edges: tuple[TensorEdge, ...]
    borders: tuple[BorderTerm, ...]
    others: tuple[SiteTerm, ...]
    neighbours: tuple[NeighbourTerm, ...]

    def shares(self, quantized: QuantizedLayers) -> NDArray[np.float64]:
        """Return x_g of an assignment over the baseline's time, (groups,), in the order of ``GROUPS``.

        Args:
            quantized: The precision of each quantized layer.
        """
        known = (self.gain_ms.get(LayerPrecision(layer, precision), 0.0) for layer, precision in quantized.items())
        steps = dict.fromkeys(Step, 0.0)
        for term in self.borders:
            for step, spent in term.by_step([form_of(quantized.get(layer)) for layer in term.layers]).items():
                steps[step] += spent
        others, neighbours = (sum(term_ms(term, quantized) for term in terms) for terms in (self.others, self.neighbours))
        return np.array([-sum(known), others, neighbours, float(len(quantized)) * self.baseline_ms, *steps.values()]) / self.baseline_ms


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fit of one of the ``MODELS``, and its certainty.

    ``theta``: (groups,), 0 where it is not fitted; ``covariance``: (groups, groups), of the thetas.
    """

    name: str
    costs: KernelCosts
    theta: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: float  # standard deviation of a ratio from what the model says of it
    left_out: float  # root mean square error of each timed engine's ratio, predicted from all others

    def error(self, quantized: QuantizedLayers) -> float:
        """Return the standard error of a predicted ratio.

        Args:
            quantized: The precision of each quantized layer.
        """
        if not quantized:
            return 0.0
        row = self.costs.shares(quantized)
        return float(np.sqrt(row @ self.covariance @ row + self.noise**2))

    def model(self) -> TimeModel:
        """Return the time model."""
        costs = self.costs
        factor = {group: BELIEVED.get(group, 1.0) + float(theta) for group, theta in zip(GROUPS, self.theta, strict=True)}
        precisions = dict.fromkeys(layer_precision.precision for layer_precision in costs.gain_ms)
        local: tuple[Term, ...] = (
            *(term.scaled(factor) for term in costs.borders),
            *(term.scaled(factor[OTHERS]) for term in costs.others),
            *(term.scaled(factor[NEIGHBOURS]) for term in costs.neighbours if factor[NEIGHBOURS]),
        )
        gains = {layer_precision: gain * factor[GAINS] for layer_precision, gain in costs.gain_ms.items()}
        overhead = dict.fromkeys(precisions, factor[LAYERS] * costs.baseline_ms)
        return TimeModel(costs.baseline_ms, gains, costs.edges, 0.0, overhead, local, self.error)


def fit_learned(costs: KernelCosts, trials: Sequence[Timed]) -> Fit:
    """Return the fit that predicts the timed engines best, each from all others.

    Args:
        costs: What the profiles say.
        trials: What was timed; the baseline says nothing.
    """
    timed = [trial for trial in trials if trial.quantized]
    rows = np.array([costs.shares(trial.quantized) for trial in timed]).reshape(len(timed), len(GROUPS))
    ratios = np.array([trial.ratio for trial in timed])
    errors = np.array([trial.error for trial in timed])
    best: Fit | None = None
    for name in MODELS:
        found = _fit(name, costs, rows, ratios, errors)
        if best is None or found.left_out < best.left_out * (1.0 - WORTH):
            best = found
    assert best is not None
    return best


def _fit(name: str, costs: KernelCosts, rows: NDArray[np.float64], ratios: NDArray[np.float64], errors: NDArray[np.float64]) -> Fit:
    directions, spread = _free(name, costs)
    believed = np.array([BELIEVED.get(group, 1.0) for group in GROUPS])
    unexplained = ratios - 1.0 - rows @ believed
    features = rows @ directions  # (engines, free)
    noise, left_out = FIRST_ERROR, FIRST_ERROR
    for _ in range(ROUNDS):
        weight = 1.0 / (noise**2 + errors**2)
        posterior = np.linalg.inv(np.diag(1.0 / spread**2) + features.T @ (features * weight[:, None]))
        found = posterior @ features.T @ (weight * unexplained)
        hat = np.einsum("ij,jk,ik->i", features, posterior, features) * weight
        missed = (unexplained - features @ found) / np.maximum(1.0 - hat, 1e-6)
        certain = noise**2 * weight  # the share of a miss's variance that is not the error of its engine's timing
        left_out = float(np.sqrt((FIRST_TRIALS * FIRST_ERROR**2 + missed @ (certain * missed)) / (FIRST_TRIALS + len(missed))))
        noise = max(left_out, TIMING_ERROR)
    return Fit(name, costs, directions @ found, directions @ posterior @ directions.T, noise, left_out)


def _free(name: str, costs: KernelCosts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a model fits: (groups, free), which groups each theta moves, and (free,), the spread of each before the fit."""
    conversions = {step.value for step in Step}
    layers = max(len({layer_precision.layer for layer_precision in costs.gain_ms}), 1)
    directions, spread = np.zeros((len(GROUPS), len(MODELS[name]))), np.ones(len(MODELS[name]))
    for place, free in enumerate(MODELS[name]):
        moved = conversions if free == CONVERSIONS else {free}
        directions[:, place] = [float(group in moved) for group in GROUPS]
        spread[place] = SPREAD_OF_LAYERS / layers if free == LAYERS else SPREAD.get(free, SPREAD_OF_CONVERSIONS)
    return directions, spread
