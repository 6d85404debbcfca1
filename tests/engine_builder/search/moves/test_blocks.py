from __future__ import annotations

import itertools

from engine_builder.search.moves.blocks import RUNS, blocks, layer_sets
from engine_builder.search.time_model import TensorEdge


def chain(*layers: str) -> tuple[TensorEdge, ...]:
    return tuple(TensorEdge(one, (other,), False, 1) for one, other in itertools.pairwise(layers))


# a -> b -> c -> add, which reads a too; then d -> e -> sum, which reads add too
RESIDUAL = (
    TensorEdge("a", ("b", "add"), False, 1),
    TensorEdge("b", ("c",), False, 1),
    TensorEdge("c", ("add",), False, 1),
    TensorEdge("add", ("d", "sum"), False, 1),
    TensorEdge("d", ("e",), False, 1),
    TensorEdge("e", ("sum",), False, 1),
    TensorEdge("sum", (), True, 1),
)
NAMES = ("a", "b", "c", "add", "d", "e", "sum")


def test_a_residual_network_is_cut_behind_its_sums() -> None:
    assert blocks(NAMES, RESIDUAL) == (("a",), ("b", "c", "add"), ("d", "e", "sum"))


def test_a_plain_chain_is_cut_behind_every_layer() -> None:
    assert blocks("abc", chain("a", "b", "c")) == (("a",), ("b",), ("c",))


def test_every_layer_is_in_one_block_whatever_leaves_the_last_one() -> None:
    open_ended = (TensorEdge("a", ("b", "c"), False, 1), TensorEdge("b", ("c",), False, 1))
    assert sum(blocks("abc", open_ended), ()) == ("a", "b", "c")


def test_sets_are_single_layers_neighbours_blocks_and_runs_of_blocks() -> None:
    found = layer_sets(NAMES, RESIDUAL)
    assert found[: len(NAMES)] == tuple((name,) for name in NAMES)
    assert {("b", "c"), ("a", "add"), ("b", "c", "add"), ("b", "c", "add", "d", "e", "sum")} <= set(found)
    assert len(set(found)) == len(found)


def test_runs_of_every_length_begin_at_every_block() -> None:
    names = tuple(f"l{index:02}" for index in range(12))
    found = set(layer_sets(names, chain(*names)))
    assert all(names[start : start + length] in found for length in RUNS if length <= 12 for start in range(12 - length + 1))


def test_a_group_is_in_a_set_as_a_whole_or_not_at_all() -> None:
    for layers in layer_sets(NAMES, RESIDUAL, [("c", "d")]):
        assert ("c" in layers) == ("d" in layers)


def test_a_group_with_a_layer_that_is_not_there_binds_nobody() -> None:
    assert ("c",) in layer_sets(NAMES, RESIDUAL, [("c", "elsewhere")])
