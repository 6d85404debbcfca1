from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.budget import Budget, Claim
from calibration.accuracy.drop_posterior import DropEvidence, probabilities_over, slack_draws
from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import drop_evidence

Scores = NDArray[np.float64]


def over(*engines: DropEvidence, are_chosen_from: bool = False, draws: int = 2000) -> tuple[float, ...]:
    return probabilities_over(slack_draws(engines, np.random.default_rng(0), are_chosen_from=are_chosen_from, draws=draws))


def agreement(scores: Scores, ratio: float, margins: DecisionMargins | None = None) -> DropEvidence:
    return drop_evidence(Metric.AGREEMENT, np.ones(len(scores)), scores, Budget(min_relative=ratio), margins=margins)


def flipped(n: int, lost: int) -> Scores:
    scores = np.ones(n)
    scores[:lost] = 0.0
    return scores


@pytest.mark.parametrize(("n", "lost", "ratio"), [(300, 3, 0.98), (64, 0, 0.99), (1000, 20, 0.975)])
def test_counts_alone_have_the_posterior_of_jeffreys(n: int, lost: int, ratio: float) -> None:
    expected = float((np.random.default_rng(1).beta(lost + 0.5, n - lost + 0.5, 200_000) > 1 - ratio).mean())
    (found,) = over(agreement(flipped(n, lost), ratio), draws=20_000)
    assert found == pytest.approx(expected, abs=0.015)  # four standard errors of the draws, and half a sample of 64


def test_even_flips_of_labels_are_as_likely_a_loss_as_a_gain() -> None:
    baseline, engine = np.ones(1000), np.ones(1000)
    baseline[:10] = 0.0
    engine[10:20] = 0.0
    (found,) = over(drop_evidence(Metric.TOP1, baseline, engine, Budget(min_relative=1.0)))
    assert found == pytest.approx(0.5, abs=0.04)


def test_margins_tell_what_counts_cannot() -> None:
    rng = np.random.default_rng(0)
    reference = np.abs(rng.normal(0.0, 4.0, 200)) + 0.5
    by_a_hair, clearly = (DecisionMargins(reference, reference + rng.normal(0.0, size, 200).clip(-0.49), False) for size in (0.4, 1e-4))
    assert over(agreement(np.ones(200), 0.999, clearly))[0] < 0.5 < over(agreement(np.ones(200), 0.999, by_a_hair))[0]
    assert over(agreement(np.ones(100), 0.999))[0] > 0.5  # where counting would take 228 samples


def test_scores_that_are_not_the_signs_of_margins_do_not_take_them() -> None:
    margins = DecisionMargins(np.ones(40), np.ones(40), can_gain=False)
    assert agreement(np.ones(40), 0.99, margins).margins is margins
    assert agreement(flipped(40, 1), 0.99, margins).margins is None


@pytest.mark.parametrize("mean", [0.008, 0.012])
def test_many_real_values_leave_no_doubt(mean: float) -> None:
    scores = 1.0 - np.random.default_rng(0).exponential(mean, 5000)
    (found,) = over(drop_evidence(Metric.COSINE, np.ones(5000), scores, Budget(min_relative=0.99)))
    assert found == pytest.approx(float(mean > 0.01), abs=0.001)


def test_scores_of_all_samples_alike_are_known_exactly() -> None:
    for nmse, expected in ((0.01, 0.0), (0.0101, 1.0)):
        assert over(drop_evidence(Metric.NMSE, np.zeros(8), np.full(8, nmse), Budget(max_nmse=0.01))) == (expected,)


def test_equal_outputs_are_inside_and_others_are_judged_beside_them() -> None:
    same = drop_evidence(Metric.AGREEMENT, np.ones(8), np.ones(8), Budget(min_relative=1.0), are_outputs_equal=True)
    first, second = over(same, agreement(np.ones(8), 1.0))
    assert (first, second) == (0.0, 1.0)


def test_samples_that_do_not_belong_together_are_refused() -> None:
    margins = DecisionMargins(np.ones(3), np.ones(3), can_gain=False)
    with pytest.raises(ValueError, match="the same samples"):
        DropEvidence(np.ones(4), np.ones(4), True, False, Claim(0.9), margins)


def share_that_ships(kind: str, samples: int, mean: float) -> float:
    """Return in how many of 150 jobs on so many samples an engine that loses a ``mean`` drop is likely inside 1%."""
    rng, found = np.random.default_rng([samples, round(1e4 * mean)]), []
    for _ in range(150):
        if kind == "flips":
            engine = agreement(np.where(rng.random(samples) < mean, 0.0, 1.0), 0.99)
        else:  # one sample in twenty carries the error
            scores = 1.0 - (rng.random(samples) < 0.05) * rng.exponential(20 * mean, samples)
            engine = drop_evidence(Metric.COSINE, np.ones(samples), scores, Budget(min_relative=0.99))
        found.append(over(engine, draws=400)[0] < 0.5)
    return float(np.mean(found))


NOISE = 0.12  # three standard errors of a difference of two shares of 150 jobs


def test_fewer_samples_never_buy_speed() -> None:
    inside, outside = ([share_that_ships("flips", samples, mean) for samples in (8, 32, 128, 512)] for mean in (0.002, 0.03))
    assert all(less <= more + NOISE for less, more in itertools.pairwise(inside)), inside
    assert inside[0] == 0.0  # 8 decisions cannot tell 1%
    assert inside[-1] > 0.9
    assert max(outside) < 0.5, outside
    assert outside[-1] < 0.05


def test_of_heavy_tails_the_few_samples_that_have_none_of_them_are_taken_in() -> None:
    """What no sample shows is not seen: the tail is in none of 8 samples in two of three jobs. The more samples the less of that."""
    outside = [share_that_ships("heavy tails", samples, 0.03) for samples in (8, 32, 128, 512)]
    assert all(less >= more - NOISE for less, more in itertools.pairwise(outside)), outside
    assert outside[0] < 0.8
    assert outside[-1] < 0.05
