"""What a pass keeps of a batch stays within its bytes, whatever the model's depth, and a walk makes the rest again."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from calibration.execution.float_pass import FloatPass, TappedBlocks, tapped_blocks
from calibration.execution.onnxruntime_session import Piece
from calibration.execution.partition import Graph
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from tests.model_text import model_from_text, run, samples_for
from tests.probed_models import assert_close

DEPTH, SIDE, SAMPLES = 12, 16, 4
TENSOR_BYTES = 4 * SAMPLES * 4 * SIDE * SIDE  # of what each convolution makes
ALL = 1 << 30


def deep() -> onnx.ModelProto:
    """One convolution after the other."""
    names = ["x", *(f"h{index}" for index in range(DEPTH - 1)), "y"]
    lines = [f"{made} = Conv<pads=[1,1,1,1]>({read}, w{index})" for index, (read, made) in enumerate(itertools.pairwise(names))]
    body = "\n".join(lines)
    text = f"g (float[N,4,{SIDE},{SIDE}] x) => (float[N,4,{SIDE},{SIDE}] y) {{ {body} }}"
    return model_from_text(text, {f"w{index}": (4, 4, 3, 3) for index in range(DEPTH)})


def with_branch() -> onnx.ModelProto:
    """A branch beside two layers, made after the first of them and read after the second."""
    return model_from_text(
        """g (float[N,4] x) => (float[N,4] y) {
            first = MatMul(x, w0)
            side = MatMul(x, w1)
            second = MatMul(first, w2)
            sum = Add(second, side)
            y = MatMul(sum, w3)
        }""",
        {f"w{index}": (4, 4) for index in range(4)},
    )


def cut(model: onnx.ModelProto) -> tuple[Graph, TappedBlocks]:
    """Return a prepared model and its blocks of one layer, each of which gives out what later blocks read."""
    ready = prepare(model).model
    graph = Graph(ready, find_layers(ready))
    blocks = graph.blocks(1)
    taps = [Piece(graph.piece(one.start, one.stop, outputs=graph.piece_outputs(one.start, one.stop))) for one in blocks]
    return graph, tapped_blocks(graph, blocks, taps)


def passed(model: onnx.ModelProto, kept_bytes: int) -> tuple[Graph, FloatPass]:
    graph, blocks = cut(model)
    given = {**graph.matrices, **samples_for(model, SAMPLES)}
    return graph, FloatPass(blocks, given, graph.outputs, kept_bytes=kept_bytes)


@pytest.mark.parametrize("tensors", [0, 1, 3])
def test_what_is_kept_stays_within_its_bytes_whatever_the_depth(tensors: int) -> None:
    _, found = passed(deep(), tensors * TENSOR_BYTES)
    assert found.held_bytes <= (tensors + 1) * TENSOR_BYTES  # and the output


def test_all_is_kept_where_it_has_room() -> None:
    _, found = passed(deep(), ALL)
    assert found.held_bytes == DEPTH * TENSOR_BYTES


@pytest.mark.parametrize("kept_bytes", [0, 2 * TENSOR_BYTES, ALL])
def test_a_walk_gives_the_same_tensors_however_much_is_kept(kept_bytes: int) -> None:
    model = deep()
    _, found = passed(model, kept_bytes)
    *_, (inside, behind) = found.walk()
    (expected,) = run(model, samples_for(model, SAMPLES))
    assert_close(inside["y"], expected, atol=1e-3)  # of numbers up to 27, behind twelve sums  # another order of the sums
    assert np.array_equal(inside["y"], found.ends["y"])  # the same session on the same numbers
    assert behind.keys() == {"x", "y"}


def test_a_walk_lets_go_of_what_is_not_read_any_more() -> None:
    _, found = passed(deep(), 0)
    assert max(len(inside.keys() - {"x"}) for inside, _ in found.walk()) == 2  # what a convolution reads and what it makes


def test_a_branch_that_a_change_does_not_reach_is_there_behind_the_changed_layer() -> None:
    graph, found = passed(with_branch(), 0)
    assert [block.units[0].layer.output for block in graph.blocks(1)] == ["first", "side", "second", "y"]
    (_, behind), *_ = found.walk()
    assert {"first", "side"} <= behind.keys()
    assert not {"second", "sum"} & behind.keys()
