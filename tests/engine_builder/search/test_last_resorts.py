"""One-format engines that are slower and more accurate than others are tried only where those miss the budget."""

from __future__ import annotations

import pytest

from engine_builder.search.search import Search
from tests.engine_builder.search.fake_world import FakeWorld, run

LOSSLESS = FakeWorld((0.0,) * 8)
LOSSY = FakeWorld((0.01,) * 8)  # of 0.001 that may be lost


def search(world: FakeWorld, last_resorts: tuple[str, ...] = (), *, last_first: bool = False) -> Search:
    slow = world.quantized(world.layers[:4])
    one_format = {"all_low": world.all_quantized, "all_int8_weights": slow, "all_int8_dynamic": world.quantized(world.layers[:6])}
    if last_first:
        one_format = dict(reversed(one_format.items()))
    made = Search(
        one_format,
        lambda trials: iter(()),
        world.fingerprint,
        max_trials=None,
        max_seconds=None,
        seconds=lambda: 0.0,
        view=lambda trials: lambda trial: trial.on_search,
        last_resorts=last_resorts,
    )
    return made


def orders(world: FakeWorld, made: Search) -> list[str]:
    return [trial.order for trial in run(world, made)]


def test_without_any_all_are_tried_in_their_order() -> None:
    assert orders(LOSSLESS, search(LOSSLESS)) == ["baseline", "all_low", "all_int8_weights", "all_int8_dynamic"]


@pytest.mark.parametrize("last_first", [False, True])
def test_a_last_resort_costs_no_trial_where_the_fastest_of_the_others_keeps_the_budget(*, last_first: bool) -> None:
    found = orders(LOSSLESS, search(LOSSLESS, ("all_int8_weights",), last_first=last_first))
    assert sorted(found) == ["all_int8_dynamic", "all_low", "baseline"]


def test_a_last_resort_is_tried_after_the_others_where_those_miss_it() -> None:
    assert orders(LOSSY, search(LOSSY, ("all_int8_weights",))) == ["baseline", "all_low", "all_int8_dynamic", "all_int8_weights"]


def test_where_only_a_slower_engine_keeps_the_budget_the_last_resort_is_still_tried() -> None:
    world = FakeWorld((0.0,) * 6 + (0.01,) * 2)  # dynamic integers keep it, static ones, which are faster, do not
    assert "all_int8_weights" in orders(world, search(world, ("all_int8_weights",)))
