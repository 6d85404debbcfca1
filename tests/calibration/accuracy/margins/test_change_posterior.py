from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from calibration.accuracy.margins.change_posterior import DRAWS, UNSEEN_WEIGHT, change_draws
from calibration.accuracy.margins.decision_margins import DecisionMargins


def normal_engine(rng: np.random.Generator, n: int, size: float) -> DecisionMargins:
    margins = rng.exponential(1.0, n)
    return DecisionMargins(margins, margins + size * rng.standard_normal(n), can_gain=False)


def test_where_nothing_is_near_the_decision_only_the_unseen_is_left() -> None:
    margins = np.random.default_rng(0).uniform(5.0, 6.0, 50)
    draws = change_draws([DecisionMargins(margins, margins, can_gain=False)], np.random.default_rng(1))
    (found,) = draws.probabilities_over(0.99)
    expected = float(special.betaincc(UNSEEN_WEIGHT, 50, 0.01))
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / DRAWS))  # four standard errors of the draws


def test_fewer_samples_never_look_safer() -> None:
    margins = np.random.default_rng(2).exponential(1.0, 512)
    engine = margins + 0.02 * np.random.default_rng(3).standard_normal(512)  # 0.8% of decisions
    said = [
        np.mean(
            [
                change_draws(
                    [DecisionMargins(margins, engine, can_gain=False).of(part)], np.random.default_rng(4), draws=500
                ).probabilities_over(0.98)
                for part in np.arange(512).reshape(-1, n)
            ]
        )
        for n in (8, 32, 128, 512)
    ]
    assert said == sorted(said, reverse=True)


@pytest.mark.parametrize("n", [8, 24, 64, 256])
@pytest.mark.parametrize("size", [0.01, 0.1])
def test_upper_bounds_are_exceeded_as_rarely_as_they_say(n: int, size: float) -> None:
    rng = np.random.default_rng(5)
    true = float(np.mean(special.ndtr(-rng.exponential(1.0, 200_000) / size)))
    over = []
    for _ in range(150):
        draws = change_draws([normal_engine(rng, n, size)], rng, draws=500)
        over.append(true > draws.intervals(0.9)[0][1])
    assert np.mean(over) <= 0.1 + 3 * np.sqrt(0.09 / 150)  # three standard errors


def test_an_engine_that_changes_more_is_likelier_over() -> None:
    rng = np.random.default_rng(6)
    margins, noise = rng.exponential(1.0, 100), rng.standard_normal(100)
    engines = [DecisionMargins(margins, margins + size * noise, can_gain=False) for size in (0.001, 0.05, 0.1, 1.0)]
    said = change_draws(engines, rng).probabilities_over(0.98)
    assert list(said) == sorted(said)
    assert said[0] < 0.1
    assert said[-1] > 0.99


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans())
def test_a_larger_budget_is_never_likelier_exceeded(seed: int, n: int, can_gain: bool) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(1.0, 1.0, n) if can_gain else rng.exponential(1.0, n) + 1e-9
    engines = [DecisionMargins(margins, margins + rng.standard_t(2.0, n), can_gain) for _ in range(4)]
    draws = change_draws(engines, rng, draws=200)
    assert np.isfinite(draws.drop).all()
    for said in zip(*(draws.probabilities_over(ratio) for ratio in (0.5, 0.9, 0.99, 1.0)), strict=True):
        assert list(said) == sorted(said)


def test_draws_in_parts_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.accuracy.margins.change_posterior._VALUES_AT_ONCE", 1000)
    draws = change_draws([normal_engine(np.random.default_rng(7), 300, 0.05)], np.random.default_rng(8), draws=7)
    assert draws.lost.shape == (1, 7)
    assert (draws.lost > 0).all()
    np.testing.assert_allclose(draws.right, 1.0)


def test_equal_seeds_give_equal_draws() -> None:
    one, other = (change_draws([normal_engine(np.random.default_rng(9), 50, 0.1)], np.random.default_rng(10)).drop for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_engines_of_other_samples_are_refused() -> None:
    rng = np.random.default_rng(11)
    with pytest.raises(ValueError, match="same margins"):
        change_draws([normal_engine(rng, 10, 0.1), normal_engine(rng, 10, 0.1)], rng)
