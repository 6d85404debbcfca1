from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.accuracy.budget import Claim
from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.paired_claims import is_surely_inside, meets_with_confidence


def test_more_confidence_never_turns_a_refused_claim_into_one() -> None:
    for lost in range(0, 10, 2):
        table = PairedTable(both=1000 - lost, lost=lost, gained=2, wrong=98)
        met = [meets_with_confidence(table, Claim(0.99), confidence, can_gain=True) for confidence in (0.8, 0.95, 0.999)]
        assert met == sorted(met, reverse=True)


@pytest.mark.parametrize(
    ("n", "accuracy", "ratio", "gained"),
    [
        (300, 0.9, 0.99, 0.0),
        (300, 0.9, 0.97, 0.002),
        (300, 0.9, 0.998, 0.0001),
        (300, 0.6, 0.99, 0.002),
        (1000, 0.9, 0.99, 0.0),
        (1000, 0.9, 0.998, 0.0001),
        (1000, 0.6, 0.99, 0.002),
        (3000, 0.9, 0.998, 0.0001),
    ],
)
def test_a_wrong_met_at_95_percent_happens_at_most_5_percent_of_the_time(n: int, accuracy: float, ratio: float, gained: float) -> None:
    # The truth lies exactly on the budget: p_lost - p_gained = (1 - r) accuracy; flips from 0.2%, corners without gains among them.
    lost = (1 - ratio) * accuracy + gained
    draws = 2000
    tables = np.random.default_rng(n).multinomial(n, [accuracy - lost, lost, gained, 1 - accuracy - gained], size=draws)
    cells, counts = np.unique(tables, axis=0, return_counts=True)
    wrong = sum(
        count
        for row, count in zip(cells.tolist(), counts.tolist(), strict=True)
        if meets_with_confidence(PairedTable(*row), Claim(ratio), 0.95, can_gain=True)
    )
    assert wrong / draws <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)  # two standard errors of the simulation


@pytest.mark.parametrize("ratio", [0.9, 0.99, 0.998])
@pytest.mark.parametrize("n", [300, 1000, 3000])
def test_a_wrong_met_of_agreement_happens_at_most_5_percent_of_the_time(n: int, ratio: float) -> None:
    # Exactly: the sum of the binomial probabilities of the losses that are called met.
    met = [lost for lost in range(n // 5) if meets_with_confidence(PairedTable(n - lost, lost, 0, 0), Claim(ratio), 0.95, can_gain=False)]
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log1p(-ratio) + (n - k) * math.log(ratio) for k in met
    ]
    chance = sum(math.exp(log) for log in logs)
    assert chance <= 0.05


def test_a_confidence_asks_both_the_counts_and_the_margins() -> None:
    unchanged = PairedTable(both=400, lost=0, gained=0, wrong=0)
    assert is_surely_inside(unchanged, Claim(0.99), 0.95, can_gain=False, probability_over_budget=0.05)
    assert not is_surely_inside(unchanged, Claim(0.99), 0.95, can_gain=False, probability_over_budget=0.06)
    few = PairedTable(both=298, lost=0, gained=0, wrong=0)  # 0.99^298 = 0.0500..., 0.99^299 = 0.0495
    assert not is_surely_inside(few, Claim(0.99), 0.95, can_gain=False, probability_over_budget=0.0)


def test_choosing_among_engines_asks_for_more_samples() -> None:
    table = PairedTable(both=400, lost=0, gained=0, wrong=0)  # 0.99^400 = 0.018: below 0.05, above 0.05 / 5
    assert is_surely_inside(table, Claim(0.99), 0.95, can_gain=False, probability_over_budget=0.0)
    assert not is_surely_inside(table, Claim(0.99), 0.95, can_gain=False, probability_over_budget=0.0, chosen_from=5)
