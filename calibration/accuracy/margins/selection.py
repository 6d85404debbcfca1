r"""What choosing among engines by the same samples does to their verdicts, and how it is undone.

The fastest of the engines that look good enough is likelier than any other to be one that had luck (the winner's curse). Two corrections:

1. *Shares of changed decisions* are moved towards what the engines say together (B. Efron, Tweedie's formula and selection bias, JASA 106,
   2011, 1602-1614: a Bayesian estimate needs no other correction, if its prior is that of the engines chosen from). Let y be the means of
   the logarithms of the engines' shares, S the covariance of their bootstrap draws (what all share, as the samples and the float model's
   margins, is in it and moves no engine by itself), and theta = mu 1 + tau e, e ~ N(0, 1), the prior of the true logarithms. Then

       theta | y ~ N(mu 1 + K (y - mu 1), S - K S),   K = tau^2 (tau^2 I + S)^-1,   mu by generalized least squares

   (plus what mu is uncertain by). tau is averaged over its posterior by the restricted likelihood, from a flat prior. Where engines differ
   by far more than their errors, as on most fronts, nothing moves.
2. *Claims with a confidence* must hold for every set of engines: each of K engines that could have been chosen is tested at the level
   alpha / K (Bonferroni), so that a wrong claim about any of them is made in at most alpha of all jobs, however they depend on each other
   and by whatever rule one is chosen. Samples that were kept apart from the choice need none of this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def corrected_confidence(confidence: float, engines: int) -> float:
    """Return the confidence at which one of some ``engines``, chosen by the same samples, is tested to keep the ``confidence``, 0-1."""
    return 1.0 - (1.0 - confidence) / max(engines, 1)


def shrunk_together(shares: Values, smallest: float) -> Values:
    """Return draws of shares, moved and narrowed to the posterior of their logarithms under a common normal prior.

    Args:
        shares: (engines, draws), joint bootstrap draws, 0-1; fewer than three engines say nothing about each other, and stay as they are.
        smallest: A share that is as good as none, above 0; engines that are below it on average stay as they are.
    """
    known = np.flatnonzero(shares.mean(axis=1) > smallest)
    if len(known) < _FEWEST:
        return shares
    logs = np.log(np.maximum(shares[known], smallest))
    means, covariance = logs.mean(axis=1), np.cov(logs)
    spread = np.sqrt(np.diag(covariance))
    covariance = covariance + np.diag(_JITTER + 1e-6 * np.diag(covariance))
    centers, variances, weights = [], [], []
    for tau in np.geomspace(*_TAUS, _GRID):
        center, variance, likelihood = _posterior(means, covariance, tau)
        centers.append(center)
        variances.append(variance)
        weights.append(likelihood + np.log(tau))  # the grid is even in log tau, the prior flat in tau
    odds = np.exp(np.array(weights) - max(weights))
    odds /= odds.sum()
    center = odds @ np.array(centers)
    variance = odds @ (np.array(variances) + (np.array(centers) - center) ** 2)
    narrowed = np.minimum(np.sqrt(variance / np.maximum(spread**2, _JITTER)), 1.0)
    result = shares.copy()
    result[known] = np.minimum(np.exp(center[:, None] + (logs - means[:, None]) * narrowed[:, None]), 1.0)
    return result


def _posterior(means: Values, covariance: Values, tau: float) -> tuple[Values, Values, float]:
    """Return means and variances of the true logarithms, (engines,) each, and the log of the restricted likelihood of ``tau``."""
    count = len(means)
    inverse = np.linalg.inv(covariance + tau**2 * np.eye(count))
    ones = inverse.sum(axis=1)
    precision = ones.sum()
    mu = float(ones @ means) / precision
    away = means - mu
    gain = tau**2 * inverse
    center = mu + gain @ away
    unpulled = 1.0 - gain.sum(axis=1)  # how far each follows mu
    variance = np.diag(covariance - gain @ covariance) + unpulled**2 / precision
    sign, determinant = np.linalg.slogdet(inverse)
    assert sign > 0  # a covariance plus a positive diagonal
    return center, np.maximum(variance, 0.0), 0.5 * (determinant - np.log(precision) - float(away @ inverse @ away))


_FEWEST = 3  # engines
_JITTER = 1e-8
_TAUS = (0.02, 5.0)  # least and most spread of the logarithms that is tried
_GRID = 24
