from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine_builder.search.frontier import Point, frontier, predicted_loss, undominated
from engine_builder.search.time_model import Flow, TimeModel

Problem = tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64], TimeModel]


def problem(layers: int, seed: int, *, interaction: float = 0.0, conversion_ms: float = 5e-7) -> Problem:
    """Return a network like a residual one: each tensor is read by the next layer and, three times of ten, by the one after that."""
    rng = np.random.default_rng(seed)
    names = tuple(f"l{index}" for index in range(layers))
    flows = [Flow(None, names[:1], False, 5000)]
    for index, name in enumerate(names):
        readers = names[index + 1 : index + (3 if rng.random() < 0.3 else 2)]
        flows.append(Flow(name, readers, not readers, int(rng.integers(1000, 20_000))))
    loss = 10.0 ** rng.uniform(-6.0, -3.0, layers)
    pairs = np.triu(rng.normal(size=(layers, layers)) * np.sqrt(np.outer(loss, loss)) * interaction, 1)
    gains = dict(zip(names, rng.uniform(0.02, 0.5, layers) / layers, strict=True))
    return names, loss, pairs + pairs.T, TimeModel(1.0, gains, tuple(flows), conversion_ms * 10 / layers, 0.02)


def every_point(names: tuple[str, ...], loss: NDArray[np.float64], interaction: NDArray[np.float64], times: TimeModel) -> list[Point]:
    points = []
    for mask in itertools.product((False, True), repeat=len(names)):
        low = frozenset(itertools.compress(names, mask))
        points.append(Point(low, times.ratio(low), predicted_loss(mask, loss, interaction)))
    return points


@pytest.mark.parametrize("seed", range(8))
def test_at_every_exchange_rate_it_is_as_good_as_trying_every_assignment(seed: int) -> None:
    """Within 0.5% of the baseline's latency, by the models' own predictions; nine layers make 512 assignments."""
    given_problem = problem(9, seed)
    found = (*frontier(*given_problem), Point(frozenset(), 1.0, 0.0))
    best = every_point(*given_problem)
    for rate in np.geomspace(0.1, 1e6, 40):
        reached = min(point.ratio + rate * point.loss for point in found)
        assert reached <= min(point.ratio + rate * point.loss for point in best) + 0.005


@pytest.mark.parametrize("seed", range(4))
def test_with_interactions_it_stays_close_to_the_best(seed: int) -> None:
    given_problem = problem(8, seed, interaction=0.3)
    found = (*frontier(*given_problem), Point(frozenset(), 1.0, 0.0))
    best = every_point(*given_problem)
    for rate in np.geomspace(0.1, 1e6, 40):
        reached = min(point.ratio + rate * point.loss for point in found)
        assert reached <= min(point.ratio + rate * point.loss for point in best) + 0.01


@pytest.mark.parametrize("seed", range(4))
def test_rungs_cost_more_and_are_faster_one_by_one(seed: int) -> None:
    points = frontier(*problem(14, seed, interaction=0.2))
    assert len(points) > 1
    for one, other in itertools.pairwise(points):
        assert one.loss < other.loss
        assert one.ratio > other.ratio


def test_predictions_are_those_of_the_models() -> None:
    names, loss, interaction, times = problem(10, 0, interaction=0.2)
    for point in frontier(names, loss, interaction, times):
        assert point.ratio == pytest.approx(times.ratio(point.low))
        assert point.loss == pytest.approx(predicted_loss([name in point.low for name in names], loss, interaction))


def test_it_ends_at_the_fastest_assignment() -> None:
    given_problem = problem(9, 3)
    assert frontier(*given_problem)[-1].ratio == pytest.approx(min(point.ratio for point in every_point(*given_problem)))


def test_layers_that_pay_only_together_are_found() -> None:
    """Either layer alone makes the engine slower: what it saves is less than converting the tensor between them."""
    flows = (Flow("a", ("b",), False, 100_000),)
    times = TimeModel(1.0, {"a": 0.05, "b": 0.05}, flows, 1e-6, 0.0)
    assert times.ratio({"a"}) > 1.0
    assert times.ratio({"b"}) > 1.0
    points = frontier(("a", "b"), np.array([1e-4, 1e-4]), np.zeros((2, 2)), times)
    assert points[-1].low == {"a", "b"}


def test_a_layer_without_loss_is_low_in_every_rung_where_it_pays() -> None:
    times = TimeModel(1.0, {"free": 0.1, "dear": 0.1}, (), 0.0, 0.0)
    points = frontier(("free", "dear"), np.array([0.0, 1e-3]), np.zeros((2, 2)), times)
    assert all("free" in point.low for point in points)


def test_without_any_gain_there_is_no_faster_rung() -> None:
    times = TimeModel(1.0, {"a": 0.0, "b": 0.0}, (Flow("a", ("b",), False, 1000),), 1e-6, 0.0)
    assert all(point.ratio >= 1.0 for point in frontier(("a", "b"), np.array([1e-4, 1e-4]), np.zeros((2, 2)), times))


def test_two_runs_give_the_same_rungs() -> None:
    assert frontier(*problem(12, 5, interaction=0.2)) == frontier(*problem(12, 5, interaction=0.2))


def test_the_predicted_loss_adds_up_singles_and_pairs() -> None:
    interaction = np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 9.0], [0.0, 9.0, 0.0]])
    assert predicted_loss([True, True, False], np.array([1.0, 2.0, 4.0]), interaction) == pytest.approx(3.5)


def test_the_predicted_loss_is_never_negative() -> None:
    assert predicted_loss([True, True], np.array([0.1, 0.1]), np.array([[0.0, -1.0], [-1.0, 0.0]])) == 0.0


POINTS = st.lists(
    st.builds(
        Point,
        st.frozensets(st.sampled_from("abc"), min_size=0),
        st.integers(0, 8).map(lambda n: n / 8),
        st.integers(0, 8).map(lambda n: n / 8),
    ),
    max_size=20,
)


@given(POINTS)
def test_no_undominated_point_beats_another_and_each_that_is_left_out_is_beaten(points: list[Point]) -> None:
    kept = undominated(points)
    for one in kept:
        assert not any(other is not one and other.loss <= one.loss and other.ratio <= one.ratio for other in kept)
    for one in points:
        assert not one.low or any(other.loss <= one.loss and other.ratio <= one.ratio for other in kept)


@given(POINTS)
def test_the_baseline_is_never_among_the_undominated(points: list[Point]) -> None:
    assert all(point.low for point in undominated(points))
