from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.config.config import Order
from engine_builder.reporting.body.search_facts import ProbeSummary, order_in_words, trials_in_words
from engine_builder.search.search_space import one_format_engines
from engine_builder.stage_io.outcome import SearchSummary

EVERY = one_format_engines({"a": tuple(Precision)}, tuple(Precision))


@pytest.mark.parametrize("order", [*Order, *EVERY])
def test_what_proposed_a_trial_is_told_in_words(order: str) -> None:
    assert order_in_words(order) != order
    assert "_" not in order_in_words(order).removesuffix(order.removeprefix("all_"))


def test_a_name_that_is_not_known_stands_as_it_is() -> None:
    assert order_in_words("new") == "new"


@pytest.mark.parametrize(("trials", "words"), [(1, "one trial, the baseline"), (3, "3 trials, the baseline among them")])
def test_trials_are_counted_with_the_baseline(trials: int, words: str) -> None:
    assert trials_in_words(SearchSummary("nothing left to try", trials, 1.0)) == words


def test_where_several_providers_probed_it_is_said_how_many_parts_each_measured() -> None:
    alone = ProbeSummary(64, 32, 2, 160.0, ("CPU",), {"CPU": 5})
    assert alone.ran_on == "CPU"
    assert replace(alone, providers=("CPU", "CUDA"), parts={"CPU": 5, "CUDA": 1}).ran_on == "CPU (5 parts), CUDA (1 part)"
    assert replace(alone, providers=(), parts={}).ran_on == ""
