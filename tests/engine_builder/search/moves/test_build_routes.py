"""Which build routes are tried, and which of them help."""

from __future__ import annotations

import pytest

from engine_builder.records.build_route import Choice, Knob, route_text, routed_fingerprint
from engine_builder.search.moves.build_routes import MOST_MIXED, helps, mixed_routes, single_routes
from engine_builder.timing import RelativeLatency

FUSE, TILE = Knob("-fuse", "on", ("on", "off")), Knob("-tile", "2", ("1", "2", "3"))


def test_one_knob_at_a_time_leaves_out_the_default_and_takes_each_knob_before_second_values() -> None:
    assert [route_text(route) for route in single_routes([TILE, FUSE])] == ["-tile=1", "-fuse=off", "-tile=3"]


@pytest.mark.parametrize(
    ("ratio", "error", "expected"),
    [(0.9, 0.01, True), (0.9, 0.06, False), (0.995, 0.0, False), (0.985, 0.004, True), (1.0, 0.0, False), (1.2, 0.01, False)],
)
def test_a_route_helps_beyond_the_error_of_its_timing(ratio: float, error: float, expected: bool) -> None:
    assert helps(RelativeLatency(ratio, 0.0, error)) is expected


def test_combinations_take_one_value_of_each_knob_and_come_in_the_order_of_the_product() -> None:
    helpful = {Choice("-a", "1"): 0.9, Choice("-b", "1"): 0.8, Choice("-b", "2"): 0.7, Choice("-c", "1"): 0.98}
    found = [(route_text(route), round(ratio, 4)) for route, ratio in mixed_routes(helpful)]
    assert found[0] == ("-b=2 -a=1 -c=1", 0.6174)
    assert len(found) == 2 * 3 * 2 - 1 - 4  # the product with "as it was", without the empty route and the single ones
    assert [ratio for _, ratio in found] == sorted(ratio for _, ratio in found)
    assert not any("-b=1" in text and "-b=2" in text for text, _ in found)


def test_one_knob_alone_has_nothing_to_be_combined_with() -> None:
    assert list(mixed_routes({Choice("-a", "1"): 0.9, Choice("-a", "2"): 0.8})) == []


def test_of_many_knobs_those_that_helped_most_are_combined() -> None:
    helpful = {Choice(f"-k{index}", "on"): 0.5 + index / 100 for index in range(MOST_MIXED + 4)}
    routes = [route for route, _ in mixed_routes(helpful)]
    assert len(routes) == 2**MOST_MIXED - 1 - MOST_MIXED
    assert {choice.knob for route in routes for choice in route} == {f"-k{index}" for index in range(MOST_MIXED)}


def test_an_engine_of_a_route_has_a_fingerprint_of_its_own() -> None:
    names = {routed_fingerprint(origin, route) for origin in ("a", "b") for route in ("-x=1", "-x=2")}
    assert len(names) == 4
