from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search import predicted_front
from engine_builder.search.descents import descent, placed_terms, set_sums, step_screen
from engine_builder.search.descents.step_screen import Looks, StepScreen
from engine_builder.search.loss_model import predicted_loss
from engine_builder.search.predicted_front import Point, descent_over, frontier, smoothed, undominated
from engine_builder.search.search_space import QuantizedLayers, eligible_from
from engine_builder.search.time_model import TensorEdge, TimeModel
from tests.engine_builder.search.descents.encoder_world import EncoderWorld, PlainDescent, encoder_world
from tests.long_cases import mostly_long

INT8, FP8, INT4 = Precision.INT8, Precision.FP8, Precision.INT4
Problem = tuple[tuple[LayerPrecision, ...], NDArray[np.float64], NDArray[np.float64], TimeModel]


def problem(
    layers: int,
    seed: int,
    *,
    kinds: Sequence[Precision] = (INT8,),
    interaction: float = 0.0,
    conversion_ms: float = 5e-7,
    is_fused: bool = False,
) -> Problem:
    """Return a network like a residual one: each tensor is read by the next layer and, three times of ten, by the one after that."""
    rng = np.random.default_rng(seed)
    names = tuple(f"l{index:02}" for index in range(layers))
    edges = [TensorEdge(None, names[:1], False, 5000)]
    for index, name in enumerate(names):
        readers = names[index + 1 : index + (3 if rng.random() < 0.3 else 2)]
        size = int(rng.integers(1000, 20_000))
        edges.append(TensorEdge(None if is_fused else name, readers, not readers, size, is_fused=is_fused))
    layer_precisions = tuple(LayerPrecision(name, kind) for name in names for kind in kinds)
    loss = 10.0 ** rng.uniform(-6.0, -3.0, len(layer_precisions))
    pairs = np.triu(rng.normal(size=(len(loss),) * 2) * np.sqrt(np.outer(loss, loss)) * interaction, 1)
    gains = dict(zip(layer_precisions, rng.uniform(0.02, 0.5, len(loss)) / layers, strict=True))
    overhead = dict.fromkeys(kinds, 0.02 / layers)
    return layer_precisions, loss, pairs + pairs.T, TimeModel(1.0, gains, tuple(edges), conversion_ms * 10 / layers, overhead)


def point_of(
    quantized: QuantizedLayers,
    layer_precisions: Sequence[LayerPrecision],
    loss: NDArray[np.float64],
    pairs: NDArray[np.float64],
    times: TimeModel,
) -> Point:
    chosen = frozenset(LayerPrecision(*item) for item in quantized.items())
    return Point(
        chosen, times.ratio(quantized), predicted_loss([layer_precision in chosen for layer_precision in layer_precisions], loss, pairs)
    )


def every_point(
    layer_precisions: Sequence[LayerPrecision], loss: NDArray[np.float64], pairs: NDArray[np.float64], times: TimeModel
) -> list[Point]:
    eligible = eligible_from(layer_precisions)
    points = []
    for choice in itertools.product(*((None, *kinds) for kinds in eligible.values())):
        quantized = {layer: kind for layer, kind in zip(eligible, choice, strict=True) if kind is not None}
        points.append(point_of(quantized, layer_precisions, loss, pairs, times))
    return points


def short_of_best(found: Sequence[Point], best: Sequence[Point]) -> float:
    """Return by how much the best of ``found`` is worse than the best of all, at the exchange rate where that is most."""
    rates = np.geomspace(0.1, 1e6, 40)
    ratios = [
        np.array([[point.ratio] for point in points]) + np.array([[point.loss] for point in points]) * rates for points in (found, best)
    ]
    return float(np.max(ratios[0].min(axis=0) - ratios[1].min(axis=0)))


NOTHING = Point(frozenset(), 1.0, 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_at_every_exchange_rate_it_is_as_good_as_trying_every_assignment(seed: int) -> None:
    """Within 0.5% of the baseline's latency, by the models' own predictions; nine layers make 512 assignments."""
    given_problem = problem(9, seed)
    assert short_of_best((*frontier(*given_problem), NOTHING), every_point(*given_problem)) <= 0.005


@pytest.mark.parametrize("seed", range(4))
def test_with_interactions_it_stays_close_to_the_best(seed: int) -> None:
    given_problem = problem(8, seed, interaction=0.3)
    assert short_of_best((*frontier(*given_problem), NOTHING), every_point(*given_problem)) <= 0.01


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_of_three_precisions_it_is_as_good_as_trying_every_assignment(seed: int, is_fused: bool) -> None:
    """Within 0.5% of the baseline's latency; five layers of four choices make 1024 assignments."""
    given_problem = problem(5, seed, kinds=(INT8, FP8, INT4), interaction=0.2, is_fused=is_fused)
    assert short_of_best((*frontier(*given_problem), NOTHING), every_point(*given_problem)) <= 0.005


@pytest.mark.parametrize("seed", range(4))
def test_more_precisions_never_make_it_worse(seed: int) -> None:
    layer_precisions, loss, pairs, times = problem(12, seed, kinds=(INT8, FP8), interaction=0.3)
    both = (*frontier(layer_precisions, loss, pairs, times), NOTHING)
    for kind in (INT8, FP8):
        places = [place for place, layer_precision in enumerate(layer_precisions) if layer_precision.precision is kind]
        alone = frontier([layer_precisions[place] for place in places], loss[places], pairs[np.ix_(places, places)], times)
        for point in alone:
            assert any(other.loss <= point.loss + 1e-15 and other.ratio <= point.ratio + 1e-12 for other in both)


@pytest.mark.parametrize("seed", range(4))
def test_a_second_precision_is_worth_something(seed: int) -> None:
    """Each layer's better choice differs, so at most exchange rates no single precision is as good."""
    layer_precisions, loss, pairs, times = problem(12, seed, kinds=(INT8, FP8))
    places = [place for place, layer_precision in enumerate(layer_precisions) if layer_precision.precision is INT8]
    alone = frontier([layer_precisions[place] for place in places], loss[places], pairs[np.ix_(places, places)], times)
    assert short_of_best((*alone, NOTHING), (*frontier(layer_precisions, loss, pairs, times), NOTHING)) > 0.01


def test_a_layer_has_one_precision_at_most() -> None:
    for point in frontier(*problem(10, 1, kinds=(INT8, FP8, INT4), interaction=0.2)):
        assert len({layer_precision.layer for layer_precision in point.quantized}) == len(point.quantized)


def test_all_readers_of_a_tensor_that_pays_only_as_a_whole_are_found() -> None:
    """Reading it in two forms, the three layers save less than storing it twice."""
    edges = (TensorEdge(None, ("q", "k", "v"), False, 100_000, is_fused=True),)
    layer_precisions = tuple(LayerPrecision(name, INT8) for name in "qkv")
    times = TimeModel(1.0, dict.fromkeys(layer_precisions, 0.04), edges, 1e-6, {})
    assert times.ratio({"q": INT8, "k": INT8}) > 1.0
    (point,) = frontier(layer_precisions, np.full(3, 1e-4), np.zeros((3, 3)), times)
    assert point.quantized == frozenset(layer_precisions)


def test_a_group_takes_a_precision_as_one() -> None:
    layer_precisions, loss, pairs, times = problem(8, 2, kinds=(INT8, FP8))
    for point in frontier(layer_precisions, loss, pairs, times, [("l02", "l05")]):
        chosen = {layer_precision.layer: layer_precision.precision for layer_precision in point.quantized}
        assert chosen.get("l02") == chosen.get("l05")


def test_a_group_is_found_where_it_pays_as_one_and_neither_layer_alone_is_worth_its_loss() -> None:
    layer_precisions = (LayerPrecision("scores", INT8), LayerPrecision("context", INT8))
    times = TimeModel(1.0, {layer_precisions[0]: 0.2, layer_precisions[1]: 0.0}, (), 0.0, {})
    (point,) = frontier(layer_precisions, np.array([1e-4, 1e-4]), np.zeros((2, 2)), times, [("scores", "context")])
    assert point.quantized == frozenset(layer_precisions)
    assert point.ratio == pytest.approx(0.8)


def test_a_group_with_a_layer_that_cannot_be_quantized_stays_at_the_baseline() -> None:
    layer_precisions, loss, pairs, times = problem(4, 0)
    points = frontier(layer_precisions, loss, pairs, times, [("l01", "elsewhere")])
    assert points
    assert all("l01" not in {layer_precision.layer for layer_precision in point.quantized} for point in points)


def test_a_group_takes_only_what_all_of_it_can_take() -> None:
    layer_precisions = (LayerPrecision("a", INT8), LayerPrecision("a", FP8), LayerPrecision("b", FP8))
    times = TimeModel(1.0, dict(zip(layer_precisions, (0.3, 0.1, 0.1), strict=True)), (), 0.0, {})
    (point,) = frontier(layer_precisions, np.full(3, 1e-4), np.zeros((3, 3)), times, [("a", "b")])
    assert point.quantized == {LayerPrecision("a", FP8), LayerPrecision("b", FP8)}


@pytest.mark.parametrize("kinds", [(INT8,), (INT8, FP8, INT4)])
@pytest.mark.parametrize("seed", range(4))
def test_candidates_cost_more_and_are_faster_one_by_one(seed: int, kinds: tuple[Precision, ...]) -> None:
    points = frontier(*problem(14, seed, kinds=kinds, interaction=0.2))
    assert len(points) > 1
    for one, other in itertools.pairwise(points):
        assert one.loss < other.loss
        assert one.ratio > other.ratio


def test_predictions_are_those_of_the_models() -> None:
    given_problem = problem(10, 0, kinds=(INT8, FP8), interaction=0.2)
    for point in frontier(*given_problem):
        said = point_of({layer_precision.layer: layer_precision.precision for layer_precision in point.quantized}, *given_problem)
        assert (point.ratio, point.loss) == pytest.approx((said.ratio, said.loss))


def test_it_ends_at_the_fastest_assignment() -> None:
    given_problem = problem(9, 3)
    assert frontier(*given_problem)[-1].ratio == pytest.approx(min(point.ratio for point in every_point(*given_problem)))


def test_layers_that_pay_only_together_are_found() -> None:
    """Either layer alone makes the engine slower: what it saves is less than converting the tensor between them."""
    edges = (TensorEdge("a", ("b",), False, 100_000),)
    layer_precisions = (LayerPrecision("a", INT8), LayerPrecision("b", INT8))
    times = TimeModel(1.0, dict.fromkeys(layer_precisions, 0.05), edges, 1e-6, {})
    assert times.ratio({"a": INT8}) > 1.0
    assert times.ratio({"b": INT8}) > 1.0
    assert frontier(layer_precisions, np.array([1e-4, 1e-4]), np.zeros((2, 2)), times)[-1].quantized == set(layer_precisions)


def test_a_layer_without_loss_is_quantized_in_every_candidate_where_it_pays() -> None:
    free, dear = LayerPrecision("free", INT8), LayerPrecision("dear", INT8)
    times = TimeModel(1.0, {free: 0.1, dear: 0.1}, (), 0.0, {})
    points = frontier((free, dear), np.array([0.0, 1e-3]), np.zeros((2, 2)), times)
    assert points
    assert all(free in point.quantized for point in points)


def test_without_any_gain_there_is_no_faster_candidate() -> None:
    layer_precisions = (LayerPrecision("a", INT8), LayerPrecision("b", INT8))
    times = TimeModel(1.0, dict.fromkeys(layer_precisions, 0.0), (TensorEdge("a", ("b",), False, 1000),), 1e-6, {})
    assert all(point.ratio >= 1.0 for point in frontier(layer_precisions, np.array([1e-4, 1e-4]), np.zeros((2, 2)), times))


def test_two_runs_give_the_same_candidates() -> None:
    given_problem = problem(12, 5, kinds=(INT8, FP8), interaction=0.2)
    assert frontier(*given_problem) == frontier(*given_problem)


POINTS = st.lists(
    st.builds(
        Point,
        st.frozensets(st.sampled_from([LayerPrecision(name, INT8) for name in "abc"])),
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
        assert not one.quantized or any(other.loss <= one.loss and other.ratio <= one.ratio for other in kept)


@given(POINTS)
def test_the_baseline_is_never_among_the_undominated(points: list[Point]) -> None:
    assert all(point.quantized for point in undominated(points))


RUNS_PAY = TimeModel(  # a chain of eight layers whose conversions cost more than one layer, and less than three, save
    1.0,
    {LayerPrecision(f"l{index}", INT8): 0.05 for index in range(8)},
    tuple(TensorEdge(f"l{index}", (f"l{index + 1}",), False, 40_000) for index in range(7)),
    1e-6,
    {},
)
EIGHT = tuple(LayerPrecision(f"l{index}", INT8) for index in range(8))


def test_candidates_that_scatter_layers_give_way_to_runs_that_lose_no_more() -> None:
    loss = np.full(8, 1.0)
    scattered = [{f"l{index}": INT8 for index in range(0, 2 * count, 2)} for count in range(1, 5)]
    found = smoothed(scattered, descent_over(EIGHT, loss, np.zeros((8, 8)), RUNS_PAY))
    assert found[-1].loss <= 4.0
    places = sorted(int(one.layer[1:]) for one in found[-1].quantized)
    assert places == list(range(places[0], places[0] + 4))
    assert found[-1].ratio < RUNS_PAY.ratio(scattered[-1])


def test_what_is_near_a_candidate_never_loses_more_and_is_never_slower() -> None:
    for seed in range(4):
        layer_precisions, loss, pairs, times = problem(10, seed, kinds=(INT8, FP8), interaction=0.2)
        rungs = [{one.layer: one.precision for one in layer_precisions[: 2 * count : 2]} for count in range(1, 10)]
        points = [point_of(rung, layer_precisions, loss, pairs, times) for rung in rungs]
        found = smoothed(rungs, descent_over(layer_precisions, loss, pairs, times))
        for point in points:
            assert any(near.loss <= point.loss * (1.0 + 1e-6) and near.ratio <= point.ratio for near in found) or point.ratio >= 1.0
        assert found == undominated(found)


def test_between_the_points_of_exchange_rates_there_are_others_where_layers_pay_in_runs() -> None:
    loss = np.linspace(1.0, 2.0, 8)
    plain = frontier(EIGHT, loss, np.zeros((8, 8)), RUNS_PAY)
    filled = frontier(EIGHT, loss, np.zeros((8, 8)), RUNS_PAY, is_filled=True)
    assert len(filled) > len(plain)
    for point in plain:
        assert any(other.loss <= point.loss and other.ratio <= point.ratio for other in filled)
    for point in filled:
        said = point_of({one.layer: one.precision for one in point.quantized}, EIGHT, loss, np.zeros((8, 8)), RUNS_PAY)
        assert (point.ratio, point.loss) == pytest.approx((said.ratio, said.loss))


def proposals(world: EncoderWorld, *, pairs: bool = True) -> list[tuple[Point, ...]]:
    """Return the frontier, and what is near the prefixes of two orders."""
    interaction = world.pairs if pairs else world.alone
    over = descent_over(world.layer_precisions, world.loss, interaction, world.times, world.groups)
    found = [frontier(world.layer_precisions, world.loss, interaction, world.times, world.groups, is_filled=True)]
    for cost in (world.loss, np.roll(world.loss, 3)):
        order = [world.layer_precisions[index] for index in np.argsort(cost)]
        found.append(smoothed([{one.layer: one.precision for one in order[:count]} for count in range(1, len(order))], over))
    return found


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("seed", mostly_long(range(3)))
def test_proposals_are_those_of_trying_every_move_from_the_models(seed: int, pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same assignments in the same order; sums that are added up otherwise differ by rounding."""
    world = encoder_world(1, seed)
    found = proposals(world, pairs=pairs)
    monkeypatch.setattr(predicted_front, "Descent", PlainDescent)
    plain = proposals(world, pairs=pairs)
    assert [[point.quantized for point in points] for points in found] == [[point.quantized for point in points] for points in plain]
    for points, others in zip(found, plain, strict=True):
        np.testing.assert_allclose([(p.ratio, p.loss) for p in points], [(p.ratio, p.loss) for p in others], rtol=1e-9, atol=1e-12)


def test_what_is_dropped_and_added_up_anew_or_otherwise_changes_no_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    world = encoder_world(2, 0)
    found = proposals(world)
    monkeypatch.setattr(set_sums, "MOST_DENSE", 0)
    assert proposals(world) == found
    monkeypatch.setattr(descent, "MOST_KEPT", 200)
    for module in (placed_terms, step_screen):
        monkeypatch.setattr(module, "MOST_CHANGES", 3)
    assert proposals(world) == found


def test_candidates_that_were_smoothed_before_cost_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    promising = StepScreen.promising

    def counted(screen: StepScreen, loss: float, rate: float, least_gain: float) -> Looks:
        asked.append(loss)
        return promising(screen, loss, rate, least_gain)

    monkeypatch.setattr(StepScreen, "promising", counted)
    world = encoder_world(1, 0)
    over = descent_over(world.layer_precisions, world.loss, world.alone, world.times, world.groups)
    rungs = [{one.layer: one.precision for one in world.layer_precisions[:count]} for count in range(1, 10)]
    first = smoothed(rungs, over)
    assert asked
    asked.clear()
    assert smoothed(rungs, over) == first
    assert not asked
