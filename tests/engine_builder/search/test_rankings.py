from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.interactions import DependencyMatrix
from calibration.sensitivity.records import PairTest, Sensitivity, SensitivityTable
from engine_builder.config.config import Order
from engine_builder.search.rankings import (
    LikelyInteractions,
    conditional_order,
    dependency_order,
    likely_interactions,
    orders_from,
    prefixes,
    rescaled,
)

COSTS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


def table(loss: list[float], hessian: list[float | None]) -> SensitivityTable:
    rows = tuple(
        Sensitivity(f"l{index}", Precision.INT8, value, 0.0, second, None)
        for index, (value, second) in enumerate(zip(loss, hessian, strict=True))
    )
    return SensitivityTable(rows, 64, 32, 1.0, ())


def matrix(interaction: np.ndarray) -> DependencyMatrix:
    layer_precisions = tuple(LayerPrecision(f"l{index}", Precision.INT8) for index in range(len(interaction)))
    return DependencyMatrix(layer_precisions, interaction, np.zeros_like(interaction), ())


@given(COSTS)
def test_without_interactions_the_conditional_order_is_the_plain_one(alone: list[float]) -> None:
    order = conditional_order(np.array(alone), np.zeros((len(alone), len(alone))))
    assert list(order) == sorted(range(len(alone)), key=lambda index: (alone[index], index))


@given(st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_each_step_adds_least_of_what_is_left(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alone = rng.random(count)
    interaction = rng.normal(size=(count, count))
    interaction = (interaction + interaction.T) / 2
    np.fill_diagonal(interaction, 0.0)
    order = conditional_order(alone, interaction)
    assert sorted(order) == list(range(count))
    for step, chosen in enumerate(order):
        before = list(order[:step])
        added = [alone[index] + interaction[index, before].sum() for index in order[step:]]
        assert alone[chosen] + interaction[chosen, before].sum() <= min(added) + 1e-12


def test_a_layer_that_cancels_the_error_of_another_follows_it_at_once() -> None:
    interaction = np.zeros((3, 3))
    interaction[0, 2] = interaction[2, 0] = -0.9
    assert conditional_order(np.array([0.1, 0.2, 1.0]), interaction) == (0, 2, 1)


def test_a_layer_that_another_makes_worse_waits() -> None:
    interaction = np.zeros((3, 3))
    interaction[0, 1] = interaction[1, 0] = 1.0
    assert conditional_order(np.array([0.1, 0.2, 0.3]), interaction) == (0, 2, 1)


def test_the_arguments_are_left_as_they_are() -> None:
    alone, interaction = np.array([0.1, 0.2]), np.array([[0.0, 1.0], [1.0, 0.0]])
    conditional_order(alone, interaction)
    assert alone.tolist() == [0.1, 0.2]


def test_each_order_sorts_by_its_own_cost() -> None:
    interaction = np.zeros((3, 3))
    interaction[0, 1] = interaction[1, 0] = 1.0
    orders = orders_from(table([0.3, 0.2, 0.1], [0.1, 0.2, 0.3]), matrix(interaction), tuple(Order))
    names = {name: [layer_precision.layer for layer_precision in order] for name, order in orders.items()}
    assert names == {
        "loss": ["l2", "l1", "l0"],
        "hessian": ["l0", "l1", "l2"],
        "hessian+dependency": ["l0", "l2", "l1"],
        "conditional": ["l2", "l1", "l0"],
    }


@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_rescaled_interactions_never_make_the_loss_of_a_set_negative(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    perturbations = rng.normal(size=(count, 3)) * 10.0 ** rng.uniform(-2, 2, size=(count, 1))
    gram = perturbations @ perturbations.T
    interaction = 2.0 * (gram - np.diag(np.diag(gram)))
    alone = 10.0 ** rng.uniform(-4, 4, size=count)
    other = rescaled(interaction, np.diag(gram), alone)
    smallest = np.linalg.eigvalsh(np.diag(alone) + other / 2.0)[0]
    assert smallest >= -1e-9 * alone.max()  # the rounding of the eigenvalues


def test_rescaled_interactions_keep_their_cosines() -> None:
    interaction = np.array([[0.0, 0.4], [0.4, 0.0]])  # cosine 0.4 / (2 * 0.5 * 1) = 0.4
    assert rescaled(interaction, np.array([0.25, 1.0]), np.array([4.0, 9.0]))[0, 1] == pytest.approx(0.4 * 2 * 2 * 3)


def test_an_interaction_beyond_that_of_two_like_perturbations_is_cut() -> None:
    interaction = np.array([[0.0, -9.0], [-9.0, 0.0]])
    assert rescaled(interaction, np.array([1.0, 1.0]), np.array([4.0, 1.0]))[0, 1] == -4.0


def test_a_loss_of_zero_has_no_interactions() -> None:
    interaction = np.array([[0.0, 0.1], [0.1, 0.0]])
    assert not rescaled(interaction, np.array([0.0, 1.0]), np.array([1.0, 1.0])).any()
    assert not rescaled(interaction, np.array([1.0, 1.0]), np.array([0.0, 1.0])).any()


def test_interactions_go_with_the_hessian_estimates_that_they_are_added_to() -> None:
    interaction = np.zeros((3, 3))
    interaction[0, 2] = interaction[2, 0] = -0.9  # of losses a hundred times the estimates: unscaled, layer 2 would come second
    hessian, loss = np.array([0.001, 0.002, 0.01]), np.array([0.1, 5.0, 10.0])
    assert dependency_order(hessian, matrix(interaction), hessian) == (0, 2, 1)
    assert dependency_order(hessian, matrix(interaction), loss) == (0, 1, 2)


def test_only_the_orders_asked_for_and_in_the_order_asked_for() -> None:
    made = orders_from(table([0.1], [0.1]), matrix(np.zeros((1, 1))), (Order.HESSIAN, Order.LOSS))
    assert list(made) == ["hessian", "loss"]


def test_a_layer_without_hessian_is_placed_by_its_loss() -> None:
    made = orders_from(table([0.3, 0.2], [0.1, None]), matrix(np.zeros((2, 2))), (Order.HESSIAN,))
    assert [layer_precision.layer for layer_precision in made["hessian"]] == ["l0", "l1"]
    made = orders_from(table([0.3, 0.05], [0.1, None]), matrix(np.zeros((2, 2))), (Order.HESSIAN,))
    assert [layer_precision.layer for layer_precision in made["hessian"]] == ["l1", "l0"]


def test_screened_interactions_are_shrunk_alike_by_what_share_of_their_squares_is_noise() -> None:
    interaction = np.array([[0.0, 4.0, -2.0], [4.0, 0.0, 0.0], [-2.0, 0.0, 0.0]])
    error = 1.0 - np.eye(3)
    layer_precisions = matrix(interaction).layer_precisions
    kept = likely_interactions(DependencyMatrix(layer_precisions, interaction, error, ()), np.ones(3)).mean
    np.testing.assert_allclose(kept, interaction * (1.0 - 3.0 / 20.0), rtol=1e-12)  # the rounding of float64


def test_tested_pairs_are_shrunk_by_the_noise_among_them_alone() -> None:
    interaction = np.array([[0.0, 4.0, -1.0], [4.0, 0.0, 1.0], [-1.0, 1.0, 0.0]])
    error = np.array([[0.0, 2.0, 5.0], [2.0, 0.0, 5.0], [5.0, 5.0, 0.0]])
    layer_precisions = matrix(interaction).layer_precisions
    tests = (PairTest(layer_precisions[0], layer_precisions[1], 4.0, 2.0, 64),)
    kept = likely_interactions(DependencyMatrix(layer_precisions, interaction, error, tests), np.ones(3)).mean
    expected = [[0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # the screened ones are all noise
    np.testing.assert_allclose(kept, expected, rtol=1e-12)  # the rounding of float64


def test_interactions_between_the_precisions_of_one_layer_say_nothing_about_the_noise() -> None:
    layer_precisions = (LayerPrecision("a", Precision.INT8), LayerPrecision("a", Precision.INT4), LayerPrecision("b", Precision.INT8))
    interaction = np.array([[0.0, 9.0, 1.0], [9.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    error = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [2.0, 2.0, 0.0]])
    assert not likely_interactions(DependencyMatrix(layer_precisions, interaction, error, ()), np.ones(3)).mean.any()


def test_what_pure_noise_leaves_of_screened_interactions_is_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = np.triu(rng.normal(size=(30, 30)), 1)
    interaction = noise + noise.T
    found = likely_interactions(DependencyMatrix(matrix(interaction).layer_precisions, interaction, 1.0 - np.eye(30), ()), np.ones(30))
    assert np.square(found.mean).sum() <= 0.01 * np.square(interaction).sum()


def test_an_interaction_of_which_nothing_is_known_does_not_count() -> None:
    interaction = np.array([[0.0, 3.0], [3.0, 0.0]])
    unknown = DependencyMatrix(matrix(interaction).layer_precisions, interaction, np.full((2, 2), np.inf), ())
    found = likely_interactions(unknown, np.ones(2))
    assert not found.mean.any()
    assert not found.error.any()


def sharing(values: list[float], errors: list[float], tested: int) -> LikelyInteractions:
    """Return the interactions of layer 0 with others, each of which shares a tensor with it, the first of them tested; losses are 0.5."""
    count = len(values) + 1
    interaction, error, shares = np.zeros((count, count)), np.zeros((count, count)), np.zeros((count, count), dtype=bool)
    interaction[0, 1:], error[0, 1:], shares[0, 1:] = values, errors, True
    full = DependencyMatrix(
        (names := matrix(np.zeros((count, count))).layer_precisions),
        interaction + interaction.T,
        error + error.T,
        tuple(PairTest(names[0], names[index + 1], values[index], errors[index], 64) for index in range(tested)),
        shares | shares.T,
    )
    return likely_interactions(full, np.full(count, 0.5))


def test_pairs_that_share_a_tensor_are_shrunk_towards_what_such_pairs_have_in_the_middle() -> None:
    found = sharing([-0.3, -0.1, -0.2, -0.2], [0.5] * 4, 4)
    np.testing.assert_allclose(found.mean[0, 1:], -0.2, rtol=1e-12)  # all noise but for the middle; the rounding of float64
    assert not found.error.any()
    np.testing.assert_allclose(found.common_error[0, 1:], 0.25, rtol=1e-12)  # 0.5 / sqrt(4)


def test_pairs_that_differ_beyond_their_errors_keep_their_own_values() -> None:
    found = sharing([-0.4, 0.0, -0.4, 0.0], [0.1] * 4, 4)
    np.testing.assert_allclose(found.mean[0, 1:], [-0.35, -0.05, -0.35, -0.05], rtol=1e-12)  # three quarters of the squares are no noise
    np.testing.assert_allclose(found.error[0, 1:], 0.1 * np.sqrt(0.75), rtol=1e-12)


def test_a_pair_that_shares_a_tensor_and_was_not_tested_has_the_middle_of_those_that_were() -> None:
    found = sharing([-0.4, -0.2, 0.9], [0.0, 0.0, 0.1], 2)
    np.testing.assert_allclose(found.mean[0, 1:], [-0.4, -0.2, -0.3], rtol=1e-12)
    assert found.error[0, 3] == pytest.approx(0.1)  # as those that were tested spread


INT8, FP8, INT4 = Precision.INT8, Precision.FP8, Precision.INT4


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_each_step_adds_least_where_a_layer_precision_replaces_the_former_of_its_layer(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [f"l{index}" for index in range(count) for _ in range(3)]
    alone = rng.random(len(layers))
    interaction = rng.normal(size=(len(layers),) * 2)
    interaction = (interaction + interaction.T) / 2
    np.fill_diagonal(interaction, 0.0)

    def loss_of(taken: dict[str, int]) -> float:
        chosen = list(taken.values())
        return float(alone[chosen].sum() + interaction[np.ix_(chosen, chosen)].sum() / 2)

    order = conditional_order(alone, interaction, layers)
    assert sorted(order) == list(range(len(layers)))
    taken: dict[str, int] = {}
    for step, chosen in enumerate(order):
        added = {index: loss_of({**taken, layers[index]: index}) - loss_of(taken) for index in order[step:]}
        assert added[chosen] <= min(added.values()) + 1e-9
        taken[layers[chosen]] = chosen


def test_the_interaction_of_two_layer_precisions_of_one_layer_does_not_count() -> None:
    interaction = np.array([[0.0, 50.0, 0.0], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert conditional_order(np.array([0.1, 0.3, 0.25]), interaction, ["a", "a", "b"]) == (0, 1, 2)  # 0.1, then 0.2 and 0.25 more


def test_a_prefix_gives_each_layer_the_last_precision_that_it_has_in_there() -> None:
    order = (LayerPrecision("a", FP8), LayerPrecision("b", INT8), LayerPrecision("a", INT4))
    assert prefixes(order) == ({"a": FP8}, {"a": FP8, "b": INT8}, {"a": INT4, "b": INT8})


def test_the_whole_of_an_order_of_one_precision_is_the_engine_with_every_layer_quantized_and_left_out() -> None:
    assert prefixes((LayerPrecision("a", INT8), LayerPrecision("b", INT8))) == ({"a": INT8},)
    assert prefixes((LayerPrecision("a", INT8),)) == ()
    assert prefixes(()) == ()


def test_a_layer_precision_that_is_not_worth_it_does_not_replace_another() -> None:
    order = (LayerPrecision("a", FP8), LayerPrecision("a", INT8), LayerPrecision("a", INT4))
    assert prefixes(order, (), lambda new, former: (new.precision, former.precision) == (INT4, FP8)) == ({"a": FP8}, {"a": INT4})


def test_a_prefix_holds_a_group_as_a_whole_or_not_at_all() -> None:
    order = (LayerPrecision("s", INT8), LayerPrecision("x", INT8), LayerPrecision("c", INT8), LayerPrecision("y", INT8))
    assert prefixes(order, [("s", "c")]) == ({"x": INT8}, {"s": INT8, "x": INT8, "c": INT8})
