"""A graph cut into pieces is the same graph."""

from __future__ import annotations

import onnx
import pytest

from calibration.errors import CalibrationError
from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Graph, read_names
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from tests.model_text import ModelMaker, model_from_text, one_batch, run
from tests.models import AWKWARD
from tests.probed_models import assert_close

AWKWARD_MODELS = pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD.keys())
BLOCK_SIZES = (1, 2, 3, 100)


@AWKWARD_MODELS
def test_blocks_cover_every_node_once_and_split_no_layer(maker: ModelMaker) -> None:
    model = prepare(maker()).model
    layers = find_layers(model)
    graph = Graph(model, layers)
    for size in BLOCK_SIZES:
        blocks = graph.blocks(size)
        covered = [index for block in blocks for index in range(block.start, block.stop)]
        assert covered == list(range(len(model.graph.node)))
        assert [unit.layer for block in blocks for unit in block.units] == list(layers)
        assert all(block.start <= unit.start < unit.stop <= block.stop for block in blocks for unit in block.units)


@AWKWARD_MODELS
def test_pieces_run_one_after_another_give_the_whole_model(maker: ModelMaker) -> None:
    model = prepare(maker()).model
    feeds = one_batch(model)
    expected = run(model, feeds)
    graph = Graph(model, find_layers(model))
    for size in BLOCK_SIZES:
        alive: dict[str, Array] = dict(feeds)
        for block in graph.blocks(size):
            outputs = graph.piece_outputs(block.start, block.stop)
            alive.update(Piece(graph.piece(block.start, block.stop, outputs=outputs)).run(alive))
        for name, value in zip(graph.outputs, expected, strict=True):
            assert_close(alive[name], value)


def test_a_unit_is_the_layer_with_its_activation() -> None:
    model = prepare(AWKWARD["cnn"]()).model
    graph = Graph(model, find_layers(model))
    operators = [[node.op_type for node in graph.nodes[unit.start : unit.stop]] for unit in graph.units]
    assert operators == [["Conv", "Relu"], ["Conv"], ["Add", "Relu"], ["Gemm"]]


def test_the_order_of_nodes_stays_topological_when_activations_move_to_their_layers() -> None:
    model = prepare(
        model_from_text(
            """g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, wa)
                b = MatMul(x, wb)
                rb = Relu(b)
                ra = Relu(a)
                y = Sub(ra, rb)
            }""",
            {"wa": (4, 4), "wb": (4, 4)},
        )
    ).model
    graph = Graph(model, find_layers(model))
    made = set(graph.inputs) | {tensor.name for tensor in model.graph.initializer}
    for node in graph.nodes:
        assert set(node.input) <= made
        made.update(node.output)


def test_a_cut_goes_where_the_fewest_tensors_are_alive() -> None:
    model = prepare(
        model_from_text(
            """g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, w1)
                skip = Sigmoid(a)
                left = Exp(a)
                sum = Mul(left, skip)
                y = MatMul(sum, w2)
            }""",
            {"w1": (4, 4), "w2": (4, 4)},
        )
    ).model
    graph = Graph(model, find_layers(model))
    first, second = graph.blocks(1)
    assert len(graph.piece_inputs(second.start, second.stop)) == 1
    assert first.stop in (1, 4)  # after the first product, or after the product of the two branches: never between the branches


def test_a_subgraph_reads_what_it_captures_and_not_its_own_tensors() -> None:
    model = prepare(AWKWARD["if_subgraph"]()).model
    branch = next(node for node in model.graph.node if node.op_type == "If")
    assert {"h", "x", "b"} <= set(read_names(branch))
    assert not {"a", "c", "d"} & set(read_names(branch))


def test_a_fed_weight_becomes_an_input() -> None:
    model = prepare(AWKWARD["cnn"]()).model
    graph = Graph(model, find_layers(model))
    unit = graph.units[0]
    piece = Piece(graph.piece(unit.start, unit.stop, outputs=[unit.layer.output], fed=[str(unit.layer.weight)]))
    assert set(piece.inputs) == {"input", unit.layer.weight}


def test_a_tensor_of_unknown_type_is_refused_with_its_name() -> None:
    model = prepare(AWKWARD["cnn"]()).model
    del model.graph.value_info[:]
    graph = Graph(model, find_layers(prepare(AWKWARD["cnn"]()).model))
    unit = graph.units[1]
    with pytest.raises(CalibrationError, match="r1"):
        graph.piece(unit.start, unit.stop, outputs=[unit.layer.output])


def test_onnxruntime_errors_are_translated() -> None:
    broken = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Elu(missing) }')
    with pytest.raises(CalibrationError, match="cannot run a part of the model"):
        Piece(broken)
