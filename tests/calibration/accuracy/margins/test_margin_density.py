from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.margins.margin_density import MarginDensity, Pseudo


def drawn(density: MarginDensity, n: int, rng: np.random.Generator, draws: int = 50) -> tuple[np.ndarray, np.ndarray]:
    weights = rng.standard_exponential((draws, n))
    totals = weights.sum(axis=1)
    weights /= totals[:, None]
    return weights, density.masses(density.sums(weights), Pseudo.drawn(density, totals, rng))


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.booleans(), st.booleans())
def test_every_decision_lies_in_a_cell_of_its_own_side(seed: int, n: int, can_gain: bool, on_grid: bool) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(1.0, 1.0, n) if can_gain else rng.exponential(1.0, n) + 1e-9
    if on_grid:
        margins = np.sign(margins) * np.ceil(np.abs(margins) * 2) / 2
    weights, masses = drawn(MarginDensity(margins, can_gain=can_gain), n, rng)
    assert (masses >= -1e-12).all()  # sums of float64 shares
    np.testing.assert_allclose(masses[0].sum(axis=1), weights[:, margins > 0].sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(masses[1].sum(axis=1), weights[:, margins < 0].sum(axis=1), atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_a_longer_reach_flips_more_and_at_most_all(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    density = MarginDensity(rng.exponential(1.0, n) + 1e-9, can_gain=False)
    shares = density.reach(np.sort(np.concatenate([rng.normal(0.0, 2.0, 20), [-np.inf, np.inf]])))
    assert (np.diff(shares, axis=0) >= 0).all()
    np.testing.assert_array_equal(shares[0], 0.0)
    np.testing.assert_array_equal(shares[-1], 1.0)


def test_even_margins_are_taken_for_even_and_crowded_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    even, crowded, rare = (
        MarginDensity(sizes, can_gain=False).constant_probability
        for sizes in (rng.random(1000), rng.gamma(0.5, 1.0, 1000), rng.gamma(4.0, 1.0, 1000))
    )
    assert even > 0.9
    assert crowded < 0.01
    assert rare < 0.01


@pytest.mark.parametrize(("power", "tolerance"), [(1.0, 0.027), (0.5, 0.048), (3.0, 0.005)])
def test_the_lowest_cell_holds_what_a_power_of_the_margin_puts_there(power: float, tolerance: float) -> None:
    n = 20_000
    rng = np.random.default_rng(1)
    density = MarginDensity(rng.random(n) ** (1.0 / power), can_gain=False)  # P(size < x) = x^power
    masses = density.masses(density.sums(np.full((1, n), 1.0 / n)), Pseudo.expected(density))[0, 0]
    # Three standard errors of a share of the 741 samples in the first bin; at the third power the two pseudo-samples below each cut.
    assert masses[0] / masses[:5].sum() == pytest.approx((1 / 16) ** power, abs=tolerance)


def test_the_density_is_continuous_at_the_decision_where_margins_lie_on_both_sides() -> None:
    n = 5000
    rng = np.random.default_rng(2)
    density = MarginDensity(rng.normal(1.0, 1.0, n), can_gain=True)
    right, wrong = density.masses(density.sums(np.full((1, n), 1.0 / n)), Pseudo.expected(density))[:, 0, 0]
    assert right == pytest.approx(wrong, rel=0.1)  # the line's own slope within a sixteenth of the bin
    width = density.edges[1]
    assert right / width == pytest.approx(np.exp(-0.5) / np.sqrt(2 * np.pi), rel=0.15)  # the normal density at 0; 292 samples beside it


def test_margins_on_a_grid_stay_where_they_are() -> None:
    density = MarginDensity(np.repeat([1.0, 2.0, 3.0, 4.0], 16), can_gain=False)
    masses = density.masses(density.sums(np.full((1, 64), 1.0 / 64)), Pseudo.expected(density))[0, 0]
    for reach, share in ((0.99, 0.0), (1.01, 0.25), (2.5, 0.5), (9.0, 1.0)):
        assert float(masses @ density.reach(np.array([reach]))[0]) == pytest.approx(share)


def test_labels_that_are_the_models_own_leave_a_constant_density_of_right_decisions() -> None:
    """No margin is wrong: of a density that is even down to 0, the line through 0 would leave next to nothing there."""
    rng = np.random.default_rng(3)
    margins = rng.uniform(0.0, 1.0, 400)
    margins[:3] = -rng.uniform(0.0, 1.0, 3)  # labels that were changed at random
    _, masses = drawn(MarginDensity(margins, can_gain=True), 400, rng)
    right = masses[0].mean(axis=0)
    assert right[0] == pytest.approx(right[:5].sum() / 16, rel=0.05)  # the first of the cells has a sixteenth of the bin


def test_labels_of_their_own_leave_as_many_wrong_as_right_ones_at_0() -> None:
    rng = np.random.default_rng(4)
    size = rng.uniform(0.0, 6.0, 2000)
    margins = np.where(rng.random(2000) < 1.0 / (1.0 + np.exp(-size)), size, -size)  # each right with the probability that it says
    _, masses = drawn(MarginDensity(margins, can_gain=True), 2000, rng)
    assert masses[0].mean(axis=0)[0] == pytest.approx(masses[1].mean(axis=0)[0], rel=0.35)
