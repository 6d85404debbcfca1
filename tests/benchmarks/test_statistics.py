from __future__ import annotations

import pytest

from benchmarks.statistics import Difference, difference_of_means, order_quality, paired_difference


def test_quality_is_the_mean_of_log10_over_prefixes() -> None:
    assert order_quality([1e-4, 1e-2]) == pytest.approx(-3.0)  # float64 rounding


def test_loss_of_zero_counts_as_the_smallest() -> None:
    assert order_quality([0.0]) == pytest.approx(-12.0)  # float64 rounding


def test_order_without_prefixes_has_no_quality() -> None:
    with pytest.raises(ValueError, match="without prefixes"):
        order_quality([])


def test_interval_is_students_on_the_differences() -> None:
    found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])  # differences 1, 2, 3: mean 2, sd 1, t(2) = 4.30265
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(4.30265 / 3**0.5, abs=1e-5)  # the table's five decimals
    assert found.mean - found.low == pytest.approx(found.high - found.mean)  # float64 rounding


def test_what_is_common_to_a_draw_cancels() -> None:
    found = paired_difference([10.0, 200.0, -7.0], [9.5, 199.5, -7.5])
    assert (found.low, found.high) == (0.5, 0.5)


@pytest.mark.parametrize("values", [([1.0], [2.0]), ([1.0, 2.0], [1.0])])
def test_too_few_or_unpaired_values_are_refused(values: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="expected equally many"):
        paired_difference(*values)


@pytest.mark.parametrize(("low", "high", "word"), [(-0.2, -0.1, "better"), (0.1, 0.2, "worse"), (-0.1, 0.1, "no difference shown")])
def test_word_says_which_side_of_zero_the_interval_lies_on(low: float, high: float, word: str) -> None:
    assert Difference((low + high) / 2, low, high, 5).word == word


def test_interval_between_independent_means_is_welchs() -> None:
    found = difference_of_means([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])  # variances 1/3 of both means, 4 degrees of freedom: t(4) = 2.77645
    assert found.mean == 1.0
    assert found.high - found.mean == pytest.approx(2.77645 * (2 / 3) ** 0.5, abs=1e-5)  # the table's five decimals
    assert found.mean - found.low == pytest.approx(found.high - found.mean)  # float64 rounding


def test_the_noisier_mean_sets_the_degrees_of_freedom() -> None:
    found = difference_of_means([0.0, 0.0, 0.0, 0.0, 1e-9], [1.0, 2.0, 3.0])  # nearly those of the second alone: t(2) = 4.30265
    assert found.high - found.mean == pytest.approx(4.30265 / 3**0.5, abs=1e-5)  # the table's five decimals


def test_means_without_spread_have_no_interval() -> None:
    assert difference_of_means([2.0, 2.0], [1.0, 1.0]) == Difference(1.0, 1.0, 1.0, 2)


@pytest.mark.parametrize("values", [([1.0], [2.0, 3.0]), ([1.0, 2.0], [1.0])])
def test_a_lone_value_has_no_spread_and_is_refused(values: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="at least 2 of each"):
        difference_of_means(*values)
