from __future__ import annotations

from collections import Counter

import pytest

from calibration.graph_passes.folding.folded_steps import FoldedSteps, Place, folded_in_words
from calibration.graph_passes.normalize import prepare
from tests.calibration.graph_passes.folding.affine_networks import affine_network
from tests.calibration.graph_passes.folding.exact_run import TOLERANCE, difference, run_in_float64
from tests.calibration.graph_passes.folding.runtime_kernels import kernels_of
from tests.calibration.graph_passes.folding.small_models import images
from tests.long_cases import mostly_long

_AT_ONCE = 25


@pytest.mark.parametrize("first", mostly_long(range(0, 150, _AT_ONCE), quick=2))
def test_folding_changes_nothing_beyond_rounding(first: int) -> None:
    folded: Counter[str] = Counter()
    for seed in range(first, first + _AT_ONCE):
        model, feeds = affine_network(seed)
        prepared = prepare(model)
        folded.update({f"{one.operator} {one.place}": one.count for one in prepared.folded})
        assert difference(run_in_float64(model, feeds), run_in_float64(prepared.model, feeds)) < TOLERANCE, f"seed {seed}"
    assert {"Mul behind", "Add behind", "Mul before", "BatchNormalization behind"} <= folded.keys()


def test_what_was_folded_is_counted_by_operator_and_place() -> None:
    body = (
        "a = Conv(x, w) k = Add(a, c) l = Mul(k, two) r = Sigmoid(l) n = BatchNormalization(r, gamma, beta, mean, variance) y = Conv(n, w)"
    )
    prepared = prepare(images(body))
    assert prepared.folded == (
        FoldedSteps("Add", Place.BEHIND, 1, 0),  # onnxruntime does that by itself
        FoldedSteps("BatchNormalization", Place.BEFORE, 1, 1),
        FoldedSteps("Mul", Place.BEHIND, 1, 1),
    )
    assert prepared.notes == ("folded into weights and biases: 1 Add and 1 Mul behind layers, 1 BatchNormalization before layers",)


@pytest.mark.parametrize(
    "body",
    [
        "l = Conv(x, w) y = Add(l, c)",
        "l = Conv(x, w) y = Add(c, l)",
        "l = Conv(x, w) y = Add(l, two)",
        "l = Conv(x, w) y = Mul(l, d)",
        "l = Conv(x, w) y = Mul(l, two)",
        "l = Conv(x, w) y = Sub(l, c)",
        "l = ConvTranspose(x, w) y = Add(l, c)",
        "l = Conv(x, w) y = BatchNormalization(l, gamma, beta, mean, variance)",
        "l = ConvTranspose(x, w) y = BatchNormalization(l, gamma, beta, mean, variance)",
    ],
)
def test_a_step_is_saved_where_the_runtime_would_run_it(body: str) -> None:
    (step,) = prepare(images(body)).folded
    assert step.saved == len(kernels_of(images(body))) - 1


def test_words_for_many_operators_and_for_none() -> None:
    steps = tuple(FoldedSteps(name, Place.BEFORE, 2, 2) for name in ("Add", "Div", "Mul"))
    assert folded_in_words(steps) == "2 Add, 2 Div and 2 Mul before layers"
    assert folded_in_words(()) == ""


def test_nothing_is_folded_where_that_is_not_wanted() -> None:
    model = images("a = Conv(x, w) y = Mul(a, c)")
    prepared = prepare(model, folds=False)
    assert [node.op_type for node in prepared.model.graph.node] == ["Conv", "Mul"]
    assert (prepared.folded, prepared.notes) == ((), ())


def test_a_tensor_that_holds_other_values_than_the_users_has_another_name() -> None:
    body = "a = Conv(x, w) r = Relu(a) l = Mul(r, c) s = Sigmoid(l) k = Mul(s, c) t = Relu(k) y = Conv(t, w)"
    made = [node.output[0] for node in prepare(images(body)).model.graph.node]
    assert made == ["a_folded", "l", "s", "t_folded", "y"]
    sums = "a = Conv(x, w) r = Relu(a) l = Add(r, c) y = Add(l, c)"
    assert [node.output[0] for node in prepare(images(sums)).model.graph.node] == ["a", "r", "y"]


def test_nodes_are_named_after_the_users_tensors() -> None:
    nodes = prepare(images("a = Conv(x, w) r = Relu(a) l = Mul(r, c) y = Sigmoid(l)")).model.graph.node
    assert [node.name for node in nodes] == ["Conv_a", "Relu_l", "Sigmoid_y"]
