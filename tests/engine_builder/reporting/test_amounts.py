from __future__ import annotations

import pytest

from calibration.accuracy.metrics import Metric
from engine_builder.reporting.amounts import (
    amount_in_words,
    as_fast_in_words,
    percent_in_words,
    probability_in_a_cell,
    rounded,
    rounded_count,
    times_in_words,
)


@pytest.mark.parametrize(
    ("speedup", "spread", "is_predicted", "words"),
    [
        (1.4767, 0.0027, False, "1.48x ± 0.003"),
        (1.4767, 0.0, False, "1.48x"),
        (1.4767, None, False, "1.48x"),
        (1.4767, 0.00002, False, "1.48x ± 0.001"),
        (1.4767, None, True, "1.48x predicted"),
    ],
)
def test_a_speedup_has_its_spread(speedup: float, spread: float | None, is_predicted: bool, words: str) -> None:
    assert times_in_words(speedup, spread, is_predicted=is_predicted) == words


def test_a_speedup_in_a_sentence() -> None:
    assert as_fast_in_words(2.0, 0.01, is_predicted=False) == "2.00x as fast (± 0.01)"


@pytest.mark.parametrize(
    ("metric", "change", "words"),
    [(Metric.TOP1, 0.0025, "0.25 points of top1"), (Metric.PSNR, 1.234, "1.2 dB of psnr"), (Metric.NMSE, 0.003, "0.0030 of nmse")],
)
def test_an_amount_of_accuracy_is_in_the_unit_of_the_budget(metric: Metric, change: float, words: str) -> None:
    assert amount_in_words(metric, change) == words


@pytest.mark.parametrize(("value", "words"), [(12.34, "12"), (1.24, "1.2"), (0.0123, "0.012"), (1.2e-9, "1.2e-09"), (0.0, "0")])
def test_a_number_has_two_digits(value: float, words: str) -> None:
    assert rounded(value) == words


def test_a_share_is_a_percentage() -> None:
    assert [percent_in_words(share) for share in (0.014, 0.12)] == ["1.4%", "12%"]


@pytest.mark.parametrize(("probability", "words"), [(1.0, "> 99%"), (0.99, "> 99%"), (0.572, "57.2%"), (0.02, "2.0%"), (1e-9, "< 1%")])
def test_a_cell_tells_no_more_of_a_probability_than_a_sentence_does(probability: float, words: str) -> None:
    assert probability_in_a_cell(probability) == words


@pytest.mark.parametrize(("count", "words"), [(7, "7"), (85, "85"), (162_516, "160,000"), (5_640_564, "5,600,000"), (996, "1,000")])
def test_a_number_that_is_only_known_about_has_two_digits(count: int, words: str) -> None:
    assert rounded_count(count) == words
