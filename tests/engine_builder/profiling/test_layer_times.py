from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.graph.layers import Layer, LayerKind
from engine_builder.backends.kernels import KernelTime
from engine_builder.profiling.layer_times import layer_times, parts, unresolved


def layer(name: str, macs: int, *, relu: bool = False) -> Layer:
    nodes = (name, f"{name}_relu") if relu else (name,)
    return Layer(name, "Conv", LayerKind.WEIGHTED, (f"{name}_in",), f"{name}_w", 0, None, f"{name}_out", nodes, macs, 1)


LAYERS = (layer("a", 300, relu=True), layer("b", 100), layer("sum", 0), layer("c", 100))


def test_a_kernel_of_one_layer_is_that_layers_and_several_add_up() -> None:
    kernels = (KernelTime(("a", "a_relu"), 2.0), KernelTime(("a_out",), 0.5), KernelTime(("b",), 1.0), KernelTime(("softmax",), 9.0))
    assert layer_times(LAYERS, kernels) == {"a": 2.5, "b": 1.0, "sum": 0.0, "c": 0.0}
    assert unresolved(LAYERS, kernels, 0.0) == ()


def test_a_shared_kernel_is_split_by_work() -> None:
    assert layer_times(LAYERS, (KernelTime(("a", "b"), 4.0),)) == {"a": 3.0, "b": 1.0, "sum": 0.0, "c": 0.0}
    assert layer_times(LAYERS, (KernelTime(("b", "sum"), 4.0),))["sum"] == 0.0
    assert layer_times(LAYERS, (KernelTime(("sum",), 4.0),))["sum"] == 4.0


def test_layers_that_multiply_in_one_kernel_are_not_resolved() -> None:
    kernels = (KernelTime(("a", "b"), 4.0), KernelTime(("c",), 1.0))
    assert unresolved(LAYERS, kernels, 0.1) == (("a", "b"),)


def test_a_sum_beside_a_layer_is_no_group() -> None:
    assert unresolved(LAYERS, (KernelTime(("b", "sum"), 4.0),), 0.0) == ()


def test_groups_that_share_a_layer_are_one_group() -> None:
    kernels = (KernelTime(("b", "c"), 1.0), KernelTime(("a", "b"), 1.0))
    assert unresolved(LAYERS, kernels, 0.9) == (("a", "b", "c"),)


def test_a_group_that_takes_little_time_is_left_alone() -> None:
    kernels = (KernelTime(("b", "c"), 1.0), KernelTime(("softmax",), 99.0))
    assert unresolved(LAYERS, kernels, 0.05) == ()
    assert unresolved(LAYERS, kernels, 0.01) == (("b", "c"),)


def test_one_region_is_cut_into_consecutive_parts_of_about_equal_work() -> None:
    names = tuple("abcdef")
    assert parts((names,), dict(zip(names, (10, 10, 10, 10, 10, 10), strict=True)), 3) == (("a", "b"), ("c", "d"), ("e", "f"))
    assert parts((names,), dict(zip(names, (50, 1, 1, 1, 1, 46), strict=True)), 2) == (("a",), ("b", "c", "d", "e", "f"))


def test_with_too_few_parts_the_groups_of_most_work_are_kept() -> None:
    assert parts((("a", "b"), ("c", "d"), ("e", "f")), {"a": 1, "b": 1, "c": 9, "d": 9, "e": 5, "f": 5}, 2) == (("c", "d"), ("e", "f"))


@given(st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=9), min_size=1, max_size=4), st.integers(1, 12))
def test_parts_cover_their_groups_without_gaps(works: list[list[int]], most: int) -> None:
    groups = tuple(tuple(f"{index}.{place}" for place in range(len(group))) for index, group in enumerate(works))
    macs = {name: work for group, names in zip(works, groups, strict=True) for name, work in zip(names, group, strict=True)}
    cut = parts(groups, macs, most)
    assert 1 <= len(cut) <= most
    assert all(part for part in cut)
    for group in groups:
        of_group = [name for part in cut for name in part if name in group]
        assert of_group in ([], list(group))
    if most >= len(groups):
        assert sorted(name for part in cut for name in part) == sorted(macs)


def test_parts_are_as_many_as_are_allowed_while_there_are_layers() -> None:
    assert len(parts((("a", "b", "c"), ("d",)), dict.fromkeys("abcd", 1), 9)) == 4


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_groups_have_no_parts(most: int) -> None:
    assert parts((), {}, most) == ()
