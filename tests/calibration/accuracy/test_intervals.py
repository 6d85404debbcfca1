from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.accuracy.intervals import (
    PairedTable,
    at_least_as_counted,
    bca_bounds,
    drop_upper_bound,
    is_drop_below,
    margin,
    margin_bounds,
    proportion_lower_bound,
    score_statistic,
    t_bounds,
)

COUNTS = st.integers(0, 40)
TABLES = st.builds(PairedTable, both=COUNTS, lost=COUNTS, gained=COUNTS, wrong=st.integers(1, 40))
RATIOS = st.sampled_from([0.0, 0.5, 0.97, 0.9999, 1.0])


def tango_statistic(n: int, lost: int, gained: int, drop: float) -> float:
    """Tango (1998), equations 5 and 6, for the difference p_lost - p_gained = drop."""
    b = -lost - gained + (2 * n - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    q = (math.sqrt(b * b - 8 * n * c) - b) / (4 * n)
    return (lost - gained - n * drop) / math.sqrt(n * (2 * q + drop * (1 - drop)))


@pytest.mark.parametrize("table", [PairedTable(280, 5, 3, 12), PairedTable(90, 4, 0, 6), PairedTable(0, 2, 7, 1), PairedTable(40, 0, 0, 4)])
@pytest.mark.parametrize("drop", [-0.2, -0.01, 0.003, 0.1])
def test_score_statistic_is_tangos_where_all_accuracy_is_to_be_kept(table: PairedTable, drop: float) -> None:
    assert score_statistic(table, 1.0, -drop) == pytest.approx(-tango_statistic(table.n, table.lost, table.gained, drop), rel=1e-9)


def test_score_bounds_lie_where_tangos_statistic_is_the_quantile() -> None:
    low, high = margin_bounds(PairedTable(43, 0, 1, 0), 1.0, 0.975)
    assert low < 1 / 44 < high
    assert tango_statistic(44, 0, 1, -low) == pytest.approx(-1.959964, rel=1e-6)
    assert tango_statistic(44, 0, 1, -high) == pytest.approx(1.959964, rel=1e-6)


@given(TABLES, RATIOS)
@settings(max_examples=20, deadline=None)
def test_score_bounds_surround_the_margin_and_meet_the_quantile(table: PairedTable, ratio: float) -> None:
    low, high = margin_bounds(table, ratio, 0.95)
    center = margin(table, ratio)
    assert -ratio - 1e-9 <= low <= center <= high <= 1 + 1e-9
    if -ratio + 1e-6 < low < center - 1e-9:
        assert score_statistic(table, ratio, low) == pytest.approx(1.6448536, rel=1e-4)


def test_score_bounds_are_found_to_the_last_bits_where_cells_are_empty() -> None:
    """The bounds that halving alone finds, of tables whose likeliest cells lie at an end of what is possible."""
    expected = {
        PairedTable(16, 0, 7, 7): (0.13159265565094003, 0.37924204955110774),
        PairedTable(3, 1, 0, 1): (-0.564707446578457, 0.22133980091812144),
        PairedTable(4, 0, 1, 0): (0.6488834992348989, 1.0),
    }
    for (table, bounds), ratio in zip(expected.items(), (0.9995, 1.0, 0.0), strict=True):
        assert margin_bounds(table, ratio, 0.95) == pytest.approx(bounds, rel=1e-14)  # 60 halvings leave the last bits open


@given(TABLES)
@settings(max_examples=8, deadline=None)
def test_more_confidence_widens_the_score_interval(table: PairedTable) -> None:
    narrow, wide = margin_bounds(table, 0.99, 0.9), margin_bounds(table, 0.99, 0.99)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_exact_bound_without_changes_is_the_rule_of_three() -> None:
    assert drop_upper_bound(300, 0, 0, 0.95, can_gain=False) == pytest.approx(1 - 0.05 ** (1 / 300))
    # A gain was possible too: that costs 2% of the error probability.
    assert drop_upper_bound(300, 0, 0, 0.95) == pytest.approx(1 - 0.049 ** (1 / 300), rel=1e-5)


def test_exact_bound_is_hardly_wider_than_the_score_bound_when_many_samples_changed() -> None:
    table = PairedTable(49_750, 125, 125, 0)
    score = -margin_bounds(table, 1.0, 0.95)[0]
    assert score < drop_upper_bound(50_000, 125, 125, 0.95) < 1.03 * score


def test_exact_bound_is_wrong_at_most_as_often_as_it_says() -> None:
    n, alpha = 10, 0.1
    bound = {(lost, gained): drop_upper_bound(n, lost, gained, 1 - alpha) for lost in range(n + 1) for gained in range(n + 1 - lost)}
    tables = np.array(list(bound))
    bounds = np.array(list(bound.values()))
    ways = np.array([math.factorial(n) / (math.factorial(a) * math.factorial(b) * math.factorial(n - a - b)) for a, b in tables])
    worst = 0.0
    for p_gained in np.linspace(0, 0.5, 21):
        for p_lost in np.linspace(0, 1 - p_gained, 41):
            rest = max(0.0, 1 - p_lost - p_gained)
            chances = ways * p_lost ** tables[:, 0] * p_gained ** tables[:, 1] * rest ** (n - tables.sum(axis=1))
            worst = max(worst, float(chances[bounds < p_lost - p_gained - 1e-9].sum()))
    assert 0.9 * alpha < worst <= alpha  # neither too often nor needlessly cautious


@given(st.integers(20, 400), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_asking_for_a_drop_agrees_with_the_bound(n: int, lost: int, gained: int) -> None:
    bound = drop_upper_bound(n, lost, gained, 0.95)
    assert (lost - gained) / n < bound <= 1
    assert is_drop_below(bound + 1e-6, n, lost, gained, 0.95)
    assert not is_drop_below(bound - 1e-4 / n, n, lost, gained, 0.95)


def test_exact_bound_grows_with_losses_and_shrinks_with_gains() -> None:
    bound = functools.partial(drop_upper_bound, 100, confidence=0.95)
    assert bound(lost=2, gained=1) < bound(lost=3, gained=1)
    assert bound(lost=2, gained=2) < bound(lost=2, gained=1)
    assert drop_upper_bound(5, 5, 0, 0.95) == 1.0
    assert drop_upper_bound(5, 0, 5, 0.95) < 0


def test_proportion_bound_is_clopper_pearsons() -> None:
    assert proportion_lower_bound(0, 10, 0.95) == 0
    assert proportion_lower_bound(10, 10, 0.95) == pytest.approx(0.05 ** (1 / 10))


@pytest.mark.parametrize("cells", [(-1, 1, 1, 1), (0, 0, 0, 0)])
def test_a_table_that_no_samples_give_is_refused(cells: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 0 and not all 0"):
        PairedTable(*cells)


def test_bca_of_symmetric_values_is_close_to_students() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, size=2000)
    bca, student = bca_bounds(values, 0.95, np.random.default_rng(1)), t_bounds(values, 0.95)
    assert bca == pytest.approx(student, abs=0.1 * (student[1] - student[0]))  # 4000 resamples leave 2-3% of the width


def test_bca_moves_towards_the_tail() -> None:
    values = -np.random.default_rng(0).lognormal(0, 1.2, size=1500)
    bca, student = bca_bounds(values, 0.95, np.random.default_rng(1)), t_bounds(values, 0.95)
    assert bca[0] < student[0]
    assert bca[1] < student[1]


def test_bca_of_equal_values_is_that_value() -> None:
    assert bca_bounds(np.full(1000, 0.25), 0.95, np.random.default_rng(0)) == (0.25, 0.25)
    low, high = bca_bounds(np.full(1000, 0.1), 0.95, np.random.default_rng(0))  # whose mean is not exactly 0.1
    assert low == high == pytest.approx(0.1)


def test_bca_gives_the_same_bounds_for_the_same_seed() -> None:
    values = np.random.default_rng(0).exponential(size=1000)
    assert bca_bounds(values, 0.95, np.random.default_rng(5)) == bca_bounds(values, 0.95, np.random.default_rng(5))


def test_bca_is_wrong_less_often_than_students_interval_on_skewed_errors() -> None:
    rng, n, repeats = np.random.default_rng(0), 1000, 120
    errors = rng.lognormal(0, 1.5, size=(repeats, n))
    mean = math.exp(1.5**2 / 2)
    bca = sum(bca_bounds(mean - row, 0.95, rng, resamples=300)[0] > 0 for row in errors) / repeats
    student = sum(t_bounds(mean - row, 0.95)[0] > 0 for row in errors) / repeats
    assert bca < student
    assert bca <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)  # three standard errors of the simulation


def test_students_interval_of_one_value_bounds_nothing() -> None:
    low, high = t_bounds(np.array([0.5]), 0.95)
    assert low < -1e5
    assert high > 1e5


@pytest.mark.parametrize(("highest", "expected"), [(0.01, 0.4), (0.0, 0.4), (-0.001, 0.95)])
def test_an_interval_over_the_budget_is_believed_more_than_margins(highest: float, expected: float) -> None:
    assert at_least_as_counted(0.4, highest, 0.95) == expected
