"""Which tensors are probed again, on estimates whose boundary can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.adaptive_sampling import (
    FACTOR,
    ProbedTensor,
    boundaries,
    on_one_level,
    undecided,
    undecided_losses,
    within_reach,
)

SURE, UNSURE = 1e-6, 0.5  # deviation of one probe, relative


def loss(layer: str, mean: float, *, spread: float = SURE, samples: int = 16) -> tuple[LayerPrecision, tuple[float, ...]]:
    """Return a layer precision and losses that deviate by ``spread`` of their mean, half of them up and half down."""
    signs = np.resize([1.0, -1.0], samples)
    return LayerPrecision(layer, Precision.INT8), tuple(mean * (1.0 + spread * signs))


def tensor(
    layer: str, score: float, *, spread: float = SURE, site: str = "weight", precision: Precision = Precision.INT8, probes: int = 2
) -> ProbedTensor:
    """Return a tensor whose probes deviate by ``spread`` from a curvature of 2, half of them up and half down."""
    signs = np.resize([1.0, -1.0], probes) * np.sqrt((probes - 1) / probes)
    return ProbedTensor(layer, site, precision, tuple(2.0 + 2.0 * spread * signs), score / 2.0)


def test_a_boundary_lies_halfway_between_the_last_that_fits_and_the_next() -> None:
    scores = (100.0, 1.0, 10.0)  # totals of the prefixes: 1, 11, 111
    assert boundaries(scores, 20.0) == (5.5, 55.0)  # of 5 the budget may allow one, of 80 two
    assert boundaries(scores, 11.0 * FACTOR) == (55.0, 100.0)


def test_the_boundary_of_an_order_that_fits_whole_or_not_at_all_is_its_end() -> None:
    assert boundaries((3.0, 1.0, 2.0), 1e3) == (3.0,)
    assert boundaries((3.0, 1.0, 2.0), 0.0) == (1.0,)


def test_layer_precisions_that_surely_lie_on_one_side_need_no_more_probes() -> None:
    assert undecided([tensor("a", 1.0), tensor("b", 10.0), tensor("c", 100.0)], 11.0) == frozenset()


def test_losses_near_the_boundary_need_more_samples_until_their_errors_are_small() -> None:
    def names(samples: int) -> set[str]:
        far = [loss("below", 1e-3, spread=UNSURE, samples=samples), loss("above", 100.0, samples=samples)]
        near = [loss("last", 1.0, spread=UNSURE, samples=samples), loss("next", 2.0, spread=UNSURE, samples=samples)]
        return {item.layer for item in undecided_losses(dict(far + near), 1.0)}

    assert names(4) == {"last", "next"}
    assert names(256) == set()


def test_what_no_order_reaches_inside_the_budget_is_not_within_reach() -> None:
    losses = dict([loss("a", 1.0), loss("b", 1.2), loss("c", 1.3), loss("far", 100.0), loss("doubtful", 50.0, spread=20.0)])
    found = {item.layer for item in within_reach(losses, 2.0)}
    assert found >= {"a", "b", "c", "doubtful"}
    assert {item.layer for item in within_reach(dict(list(losses.items())[:4]), 0.5)} == {"a"}  # of four times that, one fits


def test_only_layer_precisions_near_the_boundary_need_more_probes() -> None:
    found = [tensor(f"below{index}", 1e-3, spread=UNSURE) for index in range(5)]
    found += [tensor("last", 1.0, spread=UNSURE), tensor("next", 1.3, spread=UNSURE), tensor("above", 100.0, spread=UNSURE)]
    assert undecided(found, 0.5) == {("last", "weight"), ("next", "weight")}


def test_the_order_far_from_the_boundary_may_be_as_uncertain_as_it_likes() -> None:
    found = [tensor("a", 1.0, spread=0.1), tensor("b", 1.001, spread=0.1), tensor("c", 40.0), tensor("d", 1000.0)]
    assert undecided(found, 100.0) == frozenset()


def test_the_tensors_behind_most_of_the_variance_are_probed_first() -> None:
    parts = [tensor("a", 1.0, site="weight", spread=UNSURE), tensor("a", 0.1, site="input0", spread=UNSURE)]
    assert undecided(parts, 1.0) == {("a", "weight")}
    parts.append(tensor("a", 0.9, site="output", spread=UNSURE))
    assert undecided(parts, 1.0) == {("a", "weight"), ("a", "output")}


def test_probes_that_agree_by_chance_are_not_taken_to_be_sure() -> None:
    def lucky(spread: float) -> bool:
        others = [tensor(f"other{index}", 1.2, spread=spread) for index in range(20)]
        return ("lucky", "weight") in undecided([tensor("lucky", 1.0), *others], 20.0)  # every boundary is at 1.2

    assert lucky(UNSURE)
    assert not lucky(SURE)


def test_each_precision_has_a_boundary_of_its_own() -> None:
    eight = [tensor("a", 0.01, spread=0.1), tensor("b", 10.0, spread=0.1)]
    four = [tensor(one.layer, 100.0, spread=0.1, precision=Precision.INT4) for one in eight]
    assert undecided(eight, 0.1) == frozenset()
    assert undecided([*eight, *four], 0.1) == {("a", "weight"), ("b", "weight")}


def test_tensors_without_any_effect_are_decided() -> None:
    dead = [ProbedTensor("dead", "weight", Precision.INT8, (0.0, 0.0), 1.0), tensor("alive", 1.0)]
    assert ("dead", "weight") not in undecided(dead, 0.9)


def test_few_batches_are_brought_to_the_level_of_all() -> None:
    level = np.array([1.0, 1.0, 3.0, 3.0])  # the later samples are twice as sensitive in the mean of all
    whole = {(f"layer{index}", "weight"): tuple((index + 1.0) * level) for index in range(996)}
    found = on_one_level({**whole, ("few", "weight"): (5.0, 5.0)})
    assert found["few", "weight"] == pytest.approx((10.0, 10.0), rel=0.01)
    assert all(found[key] == values for key, values in whole.items())


def test_one_tensor_hardly_speaks_for_the_level_of_its_batches() -> None:
    found = on_one_level({("whole", "weight"): (1.0, 1.0, 3.0, 3.0), ("few", "weight"): (5.0, 5.0)})
    assert found["few", "weight"] == pytest.approx((5.0 / 0.9, 5.0 / 0.9))


def test_as_many_probes_of_all_stay_as_they_are() -> None:
    same = {("a", "weight"): (1.0, 2.0), ("b", "output"): (0.0, 0.0)}
    assert on_one_level(same) == same
    assert on_one_level({}) == {}
