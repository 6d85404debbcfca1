r"""Loss of any assignment, to second order: L(S) = sum of h_i + sum over pairs of D_ij, with an error bar.

The D_ij are what the interactions are likely to be (``rankings.likely_interactions``): those measured are many and mostly noise.

All h_i and D_ij are of the same samples, and move together: the few samples that lose most lose most in every assignment. So the error
bar has three parts. What the samples share is the relative standard error of sum of h_i, from the covariance of the losses over samples; it
scales the whole of L. What pairs share is the error of the middle that they were shrunk towards, which adds up over them. What they do not
share are the errors of the single D_ij, which add up as if independent. The third order is in none, so the model is checked against every
measured trial, and a factor is refitted by which it is off. Where pairs cancel all that layers lose alone, nothing is known of the loss.

Whoever seeks the assignment of the least predicted loss finds the errors of the prediction, so what it minimizes is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from engine_builder.records.trial import Trial
from engine_builder.search.search_space import QuantizedLayers

PRIOR_TRIALS = 3.0  # the factor 1 counts as much as these many trials
WITHIN = 2.0  # error bars, for a prediction to count as right


@dataclass(frozen=True, slots=True)
class PredictedLoss:
    """A loss before the engine is built."""

    loss: float
    error: float  # standard error, from those of the probes; infinite where one of them, or the loss itself, is not known


@dataclass(frozen=True, slots=True, eq=False)
class LossBound:
    """A quadratic form above the loss: ``loss``, (n,), and ``interaction``, (n, n), symmetric, zero on the diagonal."""

    loss: NDArray[np.float64]
    interaction: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LossModel:
    """What the probes found of n layer precisions.

    ``loss``: (n,); ``loss_covariance``: (n, n), of the mean losses. ``interaction`` and ``interaction_error``: (n, n), of each pair,
    symmetric; ``common_error``: (n, n), the part of their errors that pairs share; None where there is none.
    """

    layer_precisions: tuple[LayerPrecision, ...]
    loss: NDArray[np.float64]
    loss_covariance: NDArray[np.float64]
    interaction: NDArray[np.float64]
    interaction_error: NDArray[np.float64]
    common_error: NDArray[np.float64] | None = None

    def predict(self, quantized: QuantizedLayers) -> PredictedLoss:
        """Return the loss of an assignment; a layer that was not probed in its precision counts as lossless.

        Args:
            quantized: The precision of each quantized layer.
        """
        chosen = [quantized.get(layer_precision.layer) is layer_precision.precision for layer_precision in self.layer_precisions]
        places = np.flatnonzero(chosen)
        block = np.ix_(places, places)
        pairs = float(np.sum(np.triu(self.interaction_error[block], 1) ** 2))
        common = 0.0 if self.common_error is None else float(np.sum(np.triu(self.common_error[block], 1)))
        said, alone = predicted_loss(chosen, self.loss, self.interaction), float(self.loss[places].sum())
        if not said > 0.0 < alone:
            return PredictedLoss(alone, math.inf if alone > 0.0 else 0.0)
        shared = math.sqrt(max(float(self.loss_covariance[block].sum()), 0.0)) * said / alone
        return PredictedLoss(said, math.hypot(shared, math.sqrt(pairs), common))

    @property
    def upper_bound(self) -> LossBound:
        """What to minimize in the place of the loss.

        Losses alone count with a standard error more. Pairs that cost less together than alone count only with what is left of that after a
        standard error; others count as they are, since a search avoids what was measured too high.
        """
        error = self.interaction_error if self.common_error is None else np.hypot(self.interaction_error, self.common_error)
        kept = np.where(self.interaction < 0.0, np.minimum(self.interaction + error, 0.0), self.interaction)
        alone = np.sqrt(np.maximum(np.diag(self.loss_covariance), 0.0))
        return LossBound(self.loss + np.where(np.isfinite(alone), alone, self.loss), kept)


@dataclass(frozen=True, slots=True)
class LossCheck:
    """The model against the measured trials."""

    factor: float  # measured over predicted: the mean of the logarithms, shrunk towards 1 where there are few trials
    trials: int  # that were compared
    within: int  # of them, those within WITHIN error bars of the prediction times the factor
    spread: float  # root mean square of log(measured / (factor x predicted)); 0 without trials

    def refit(self, said: PredictedLoss) -> PredictedLoss:
        """Return a prediction times the factor; its error bar also holds how far the model was off."""
        loss = said.loss * self.factor
        return PredictedLoss(loss, math.hypot(said.error * self.factor, loss * self.spread))


def check(model: LossModel, trials: Sequence[Trial]) -> LossCheck:
    """Return how well the model predicted what was measured.

    Args:
        model: What the probes found.
        trials: All trials; those without a loss, the baseline, and engines without the corrections that probes saw layers with say nothing.
    """
    asked = [trial for trial in trials if trial.precisions and trial.made_with is None]
    compared = [(trial.loss, model.predict(trial.precisions)) for trial in asked if trial.loss]
    known = [(measured, said) for measured, said in compared if measured > 0.0 and said.loss > 0.0]
    logs = [math.log(measured / said.loss) for measured, said in known]
    shift = sum(logs) / (len(logs) + PRIOR_TRIALS)
    factor = math.exp(shift)
    within = sum(abs(measured - factor * said.loss) <= WITHIN * factor * said.error for measured, said in known)
    spread = math.sqrt(sum((log - shift) ** 2 for log in logs) / len(logs)) if logs else 0.0
    return LossCheck(factor, len(known), within, spread)


def predicted_loss(quantized: ArrayLike, loss: NDArray[np.float64], interaction: NDArray[np.float64]) -> float:
    """Return the second-order loss of an assignment: sum of h_i and of D_ij over its layer precisions, at least 0.

    Args:
        quantized: (n,) true where a layer precision is taken, at most one of each layer.
        loss: (n,) each one's loss alone.
        interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
    """
    mask = np.asarray(quantized, dtype=np.float64)
    return max(float(mask @ loss + mask @ interaction @ mask / 2.0), 0.0)
