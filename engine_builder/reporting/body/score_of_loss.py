r"""What a loss of the outputs costs in the job's own metric, about: a power law fitted to the engines that were measured.

A metric and a loss grow together, but not alike: a loss is quadratic in what changes of the outputs, a share of changed decisions grows
like the change itself, a squared error like its square. So, over the trials i with a drop d_i above 0 and a loss l_i,

    log d = log d0 + p (log l - log l0),    1/2 <= p <= 1

with l0 and d0 the geometric means. The exponent is that of least squares, drawn towards 3/4 by as much as a spread of 1/8 says. Its
standard error, that of the mean, and the deviation of a single engine from the law make the error bar, which is a factor. Where a drop is
estimated more exactly than it is counted (margins, all engines together), the estimate counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine_builder.records.trial import Trial

LEAST, MOST, USUAL, USUAL_SPREAD = 0.5, 1.0, 0.75, 0.125  # of the exponent
LEAST_DEVIATION = 0.2  # of log d: few trials may agree by chance
LEAST_TRIALS = 2
MOST_LOSS = 1.0  # beyond it outputs are noise, and a metric is as bad as it gets


@dataclass(frozen=True, slots=True)
class DropEstimate:
    """A drop of the metric (rise, of an error), with an interval of one standard error, all above 0."""

    drop: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ScoreOfLoss:
    """The fitted law: drop = ``drop`` (loss / ``loss``) ^ ``exponent``."""

    loss: float  # geometric mean of the trials', above 0
    drop: float  # at ``loss``, above 0, in the job's metric
    exponent: float  # 0.5-1
    exponent_error: float  # standard error
    deviation: float  # of log drop, of a single trial
    trials: int  # that it was fitted to

    def estimate(self, loss: float, loss_error: float | None = None) -> DropEstimate | None:
        """Return the drop of a loss, None of a loss that is not above 0.

        Args:
            loss: Of the outputs.
            loss_error: Its standard error.
        """
        if not (loss > 0.0 and math.isfinite(loss)):
            return None
        apart = math.log(loss / self.loss)
        measured = self.exponent * loss_error / loss if loss_error is not None and math.isfinite(loss_error) else 0.0
        error = math.hypot(self.deviation * math.sqrt(1.0 + 1.0 / self.trials), apart * self.exponent_error, measured)
        drop = self.drop * math.exp(self.exponent * apart)
        return DropEstimate(drop, drop * math.exp(-error), drop * math.exp(error))

    def loss_of(self, drop: float) -> float:
        """Return the loss at which the drop, above 0, is as large."""
        return float(self.loss * (drop / self.drop) ** (1.0 / self.exponent))


def score_of_loss(trials: Sequence[Trial], *, is_lower_better: bool = False) -> ScoreOfLoss | None:
    """Return the law of a job's trials; None where fewer than LEAST_TRIALS lost anything that can be told.

    Args:
        trials: All trials.
        is_lower_better: Whether the metric is an error, so that it rises.
    """
    points = [point for trial in trials if (point := _point(trial, is_lower_better=is_lower_better)) is not None]
    if len(points) < LEAST_TRIALS:
        return None
    x_mean, y_mean = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    slope_sum = sum((x - x_mean) * (y - y_mean) for x, y in points)
    first = min(max((slope_sum + USUAL / USUAL_SPREAD**2) / (spread + 1.0 / USUAL_SPREAD**2), LEAST), MOST)
    squares = sum((y - y_mean - first * (x - x_mean)) ** 2 for x, y in points)
    variance = max(squares / (len(points) - 1), LEAST_DEVIATION**2)
    weight = spread / variance + 1.0 / USUAL_SPREAD**2  # the exponent's prior and the trials, each by its precision
    exponent = min(max((slope_sum / variance + USUAL / USUAL_SPREAD**2) / weight, LEAST), MOST)
    return ScoreOfLoss(math.exp(x_mean), math.exp(y_mean), exponent, weight**-0.5, math.sqrt(variance), len(points))


def _point(trial: Trial, *, is_lower_better: bool) -> tuple[float, float] | None:
    """Return the logarithms of a trial's loss and drop, None where there is none or it cannot be told."""
    found = trial.on_all
    if found is None or trial.loss is None or not 0.0 < trial.loss <= MOST_LOSS or not trial.low_layers or trial.failure is not None:
        return None
    if found.binary and found.flips == 0.0:
        return None
    counted = found.score - found.baseline if is_lower_better else found.baseline - found.score
    drop = counted if found.likely_slack is None else counted + found.excess - found.likely_slack
    return (math.log(trial.loss), math.log(drop)) if drop > 0.0 else None
