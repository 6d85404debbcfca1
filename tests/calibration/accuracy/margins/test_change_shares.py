from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.accuracy.margins.change_shares import FIT_WEIGHT, expected_changes
from calibration.accuracy.margins.decision_margins import DecisionMargins

Values = NDArray[np.float64]


def agreeing(reference: Values, engine: Values) -> DecisionMargins:
    return DecisionMargins(reference, np.where(engine == 0, 1e-300, engine), can_gain=False)


def test_even_margins_that_all_move_by_the_same_are_lost_by_that_share() -> None:
    margins = (np.arange(1000) + 0.5) / 1000
    assert expected_changes(agreeing(margins, margins - 0.0321)).lost == pytest.approx(0.0321, rel=0.02)  # 32 flips of 32.1 expected


def test_small_normal_changes_lose_what_the_density_at_zero_and_their_spread_say() -> None:
    rng = np.random.default_rng(0)
    found, counted = [], []
    for _ in range(200):
        margins, changes = rng.exponential(1.0, 64), 0.02 * rng.standard_normal(64)
        found.append(expected_changes(agreeing(margins, margins + changes)).lost)
        counted.append(float(np.mean(margins + changes < 0)))
    true = 0.02 / np.sqrt(2 * np.pi)  # f(0) E[max(-d, 0)], f(0) = 1: 0.8%
    assert np.mean(found) == pytest.approx(true, rel=0.25)  # the bin's mean density is 15% below that at 0
    assert np.sqrt(np.mean((np.array(found) - true) ** 2)) < 0.4 * np.sqrt(np.mean((np.array(counted) - true) ** 2))


def test_decisions_by_a_hair_count_nearly_half() -> None:
    rng = np.random.default_rng(1)
    margins = np.concatenate([rng.uniform(0.0, 1e-3, 200), rng.uniform(5.0, 6.0, 800)])
    kept = margins + np.abs(rng.normal(0.0, 0.1, 1000)) * np.where(np.arange(1000) < 200, 1.0, rng.choice([-1.0, 1.0], 1000))
    changes = expected_changes(agreeing(margins, kept))
    assert not (kept < 0).any()  # each of the 200 had luck; what the others moved by says how likely that was
    assert 0.005 < changes.lost < 0.1


def test_an_engine_that_moves_nothing_loses_nothing() -> None:
    margins = np.random.default_rng(2).normal(1.0, 1.0, 100)
    changes = expected_changes(DecisionMargins(margins, margins, can_gain=True))
    assert (changes.lost, changes.gained, changes.drop, changes.flipped) == (0.0, 0.0, 0.0, 0.0)


def test_samples_that_are_flipped_however_clear_they_are_count_as_they_are_seen() -> None:
    margins = np.random.default_rng(3).exponential(1.0, 400)
    engine = np.where(np.arange(400) % 50 == 0, -100.0, margins)  # 8 of 400
    assert expected_changes(agreeing(margins, engine)).lost == pytest.approx(0.02, rel=0.3)  # bins differ in how many of the 8 they hold


def test_many_flips_that_margins_do_not_explain_are_counted() -> None:
    margins = np.sort(np.random.default_rng(4).exponential(1.0, 10_000))
    engine = np.where(np.arange(10_000) < 500, -0.01 * margins, margins)  # each just flips, none moves far
    # The margins alone expect E = 120; (c + 500) / (c + E) E is 6% less than 500.
    assert expected_changes(agreeing(margins, engine)).lost == pytest.approx(0.05, rel=0.08)


def test_what_is_lost_and_gained_beside_labels_nearly_cancels() -> None:
    rng = np.random.default_rng(5)
    drops, flips = [], []
    for _ in range(100):
        margins = rng.normal(1.5, 1.0, 200)
        changes = expected_changes(DecisionMargins(margins, margins + 0.05 * rng.standard_normal(200), can_gain=True))
        drops.append(changes.drop)
        flips.append(changes.flipped)
    density = np.exp(-1.125) / np.sqrt(2 * np.pi)
    assert np.mean(flips) == pytest.approx(density * 0.05 * np.sqrt(2 / np.pi), rel=0.25)
    assert abs(np.mean(drops)) < 0.15 * np.mean(flips)


def test_a_shift_towards_wrong_is_a_drop_of_the_shift_times_the_density() -> None:
    rng = np.random.default_rng(6)
    margins = rng.normal(1.0, 1.0, 20_000)
    changes = expected_changes(DecisionMargins(margins, margins - 0.02, can_gain=True))
    assert changes.drop == pytest.approx(0.02 * np.exp(-0.5) / np.sqrt(2 * np.pi), rel=0.2)  # 97 flips


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.integers(1, 200), st.booleans())
def test_units_do_not_matter(seed: int, unit: float, n: int, can_gain: bool) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(1.0, 1.0, n) if can_gain else rng.exponential(1.0, n) + 1e-6
    engine = margins + 0.3 * rng.standard_t(2.0, n)
    one, other = (expected_changes(DecisionMargins(u * margins, u * engine, can_gain)) for u in (1.0, unit))
    assert one.lost == pytest.approx(other.lost, rel=1e-6, abs=1e-12)  # sums of float64
    assert one.gained == pytest.approx(other.gained, rel=1e-6, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 100))
def test_shares_lie_within_what_can_be_lost(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(0.5, 1.0, n)
    engine = np.where(rng.random(n) < 0.2, -np.inf, margins + rng.standard_cauchy(n))
    changes = expected_changes(DecisionMargins(margins, engine, can_gain=True))
    assert 0.0 <= changes.lost <= (FIT_WEIGHT + n) / n
    assert 0.0 <= changes.gained <= 1.0
