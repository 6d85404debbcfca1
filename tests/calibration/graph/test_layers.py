from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibration.errors import InvalidModelError
from calibration.graph.layers import Layer, LayerKind, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import read_model
from tests import models, unusable_models
from tests.model_text import ModelMaker, cnn, model_from_text
from tests.models import AWKWARD
from tests.unusable_models import UNUSABLE


def layers_of(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> dict[str, Layer]:
    return {layer.output: layer for layer in find_layers(prepare(model).model, shapes)}


@pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD)
def test_awkward_model_has_layers_that_own_their_weights(maker: ModelMaker) -> None:
    model = prepare(maker()).model
    nodes = {node.name: node for node in model.graph.node}
    constants = {tensor.name for tensor in model.graph.initializer}

    layers = find_layers(model)

    parameters = [name for layer in layers for name in (layer.weight, layer.bias) if name]
    assert len(set(parameters)) == len(parameters)
    assert set(parameters) <= constants
    for layer in layers:
        assert layer.name == layer.nodes[0]
        assert layer.output in nodes[layer.nodes[-1]].output
        assert set(layer.inputs) <= set(nodes[layer.name].input) - constants
        assert (layer.kind is LayerKind.WEIGHTED) == (layer.weight is not None) == (layer.weight_count > 0)


def test_convolutional_network() -> None:
    layers = find_layers(prepare(cnn()).model, {"input": (16, 1, 8, 8)})

    assert layers[0] == Layer(
        name="Conv_c1",
        op_type="Conv",
        kind=LayerKind.WEIGHTED,
        inputs=("input",),
        weight="w1",
        weight_axis=0,
        bias="b1",
        output="r1",
        nodes=("Conv_c1", "Relu_r1"),
        macs=8 * 8 * 4 * 9,
        weight_count=36,
    )
    assert [(layer.op_type, layer.kind, layer.output) for layer in layers[1:]] == [
        ("Conv", LayerKind.WEIGHTED, "c2"),
        ("Add", LayerKind.RESIDUAL_ADD, "r2"),
        ("Gemm", LayerKind.WEIGHTED, "logits"),
    ]


def test_attention_block() -> None:
    layers = layers_of(models.attention(), ids=(2, 5), mask=(2, 5))

    assert {name: layer.kind for name, layer in layers.items()} == {
        **dict.fromkeys(("q", "k", "v0", "up", "down"), LayerKind.WEIGHTED),
        **dict.fromkeys(("scores", "mixed"), LayerKind.ATTENTION_PRODUCT),
        **dict.fromkeys(("first", "y"), LayerKind.RESIDUAL_ADD),
    }
    assert layers["scores"].inputs == ("q", "kt")
    assert layers["scores"].macs == 5 * 5 * 8
    assert layers["up"].macs == 5 * 8 * 16
    assert layers["first"].inputs == ("mixed", "x")


def test_layers_do_not_depend_on_the_shapes_given() -> None:
    model = prepare(models.attention()).model

    assert [layer.name for layer in find_layers(model)] == [layer.name for layer in find_layers(model, {"ids": (1, 1), "mask": (1, 1)})]


@pytest.mark.parametrize(
    ("maker", "output", "axis"),
    [
        (models.gemm_factors, "y", 0),  # transB
        (models.shared_weight, "a", None),
        (models.odd_names, "out:0", 1),
        (models.conv_transpose, "y", 1),
        (models.weight_on_the_left, "y", 0),
    ],
)
def test_output_channels_lie_on_the_axis_of_the_operator(maker: ModelMaker, output: str, axis: int | None) -> None:
    layers = layers_of(maker())

    if axis is None:
        assert layers["r"].weight_axis == 1  # its output is the Relu's
    else:
        assert layers[output].weight_axis == axis


def test_constant_factor_on_the_left_is_the_weight() -> None:
    layer = layers_of(models.weight_on_the_left(), x=(2, 6, 5))["y"]

    assert (layer.weight, layer.inputs, layer.macs) == ("w", ("x",), 4 * 6 * 5)


def test_transposed_convolution_counts_input_times_kernel() -> None:
    layer = layers_of(models.conv_transpose(), x=(3, 4, 8, 8))["y"]

    assert layer.macs == 4 * 8 * 8 * 2 * 2 * 2
    assert layer.nodes == ("ConvTranspose_up", "Clip_y")


def test_grouped_convolution_counts_its_own_channels_only() -> None:
    model = model_from_text("g (float[N,4,8,8] x) => (float[N,4,8,8] y) { y = Conv<group=4, pads=[1,1,1,1]>(x, w) }", {"w": (4, 1, 3, 3)})

    assert layers_of(model, x=(5, 4, 8, 8))["y"].macs == 4 * 8 * 8 * 9


@pytest.mark.parametrize(
    ("tail", "output"),
    [
        ("y = Relu(h)", "y"),
        ("y = Clip(h, zero, six)", "y"),
        ("y = Clip(h, zero)", "y"),
        ("y = Clip(h, one, six)", "h"),
        ('y = Clip(h, "", six)', "h"),
        ("low = Neg(zero) total = ReduceSum<keepdims=0>(x) y = Clip(h, zero, total)", "h"),
        ("y = Sigmoid(h)", "h"),
        ("r = Relu(h) y = Add(r, h)", "h"),
    ],
)
def test_output_is_after_a_relu_that_alone_reads_the_layer(tail: str, output: str) -> None:
    text = f"g (float[N,6] x) => (float[N,3] y) <float zero = {{0}}, float one = {{1}}, float six = {{6}}> {{ h = MatMul(x, w) {tail} }}"

    layers = find_layers(prepare(model_from_text(text, {"w": (6, 3)})).model)

    assert layers[0].output == output


def test_layer_whose_tensor_is_a_graph_output_ends_there() -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] h, float[N,3] y) { h = MatMul(x, w) y = Relu(h) }", {"w": (6, 3)})

    assert set(layers_of(model)) == {"h"}


def test_layer_that_a_subgraph_reads_ends_there() -> None:
    assert next(iter(layers_of(models.if_subgraph()))) == "h"


@pytest.mark.parametrize(
    "tail",
    [
        "y = Add(h, bias)",
        "m = ReduceMean<axes=[1], keepdims=1>(h) y = Add(h, m)",
        "y = Add(h, h)",
        "s = Sigmoid(h) p = Mul(h, s) y = Add(p, h)",
        "a = Softmax(h) b = MatMul(x, v) t = Add(a, b) y = Softmax(t)",
        "a = Softmax(h) b = MatMul(x, v) t = Add(a, b) low = Max(t, bias) y = Softmax(low)",
    ],
    ids=["bias", "broadcast", "double", "activation function", "mask", "guarded mask"],
)
def test_sum_that_joins_no_two_branches_is_no_residual_add(tail: str) -> None:
    text = f"g (float[N,6] x) => (float[N,3] y) {{ h = MatMul(x, w) {tail} }}"

    layers = find_layers(prepare(model_from_text(text, {"w": (6, 3), "v": (6, 3), "bias": (3,)})).model)

    assert LayerKind.RESIDUAL_ADD not in {layer.kind for layer in layers}


def test_unknown_axes_still_give_a_residual_add() -> None:
    text = """g (float[N,T,6] x, int64[2] shape) => (float[N,M] y) {
        a = MatMul(x, w)
        b = MatMul(x, v)
        fa = Reshape(a, shape)
        fb = Reshape(b, shape)
        y = Add(fa, fb)
    }"""

    assert layers_of(model_from_text(text, {"w": (6, 6), "v": (6, 6)}))["y"].kind is LayerKind.RESIDUAL_ADD


@pytest.mark.parametrize(
    ("maker", "found", "fix"),
    [
        (unusable_models.no_layer, "Relu, Sigmoid", "Check that the whole network was exported and that its weights are in the file."),
        (
            unusable_models.layers_in_a_subgraph_only,
            "Loop",
            "Check that the whole network was exported and that its weights are in the file.",
        ),
        (unusable_models.float64, "MatMul", "Export the model in float32: its weights are float64."),
    ],
)
def test_model_without_a_quantizable_layer_is_refused(maker: ModelMaker, found: str, fix: str) -> None:
    model = prepare(maker()).model

    with pytest.raises(InvalidModelError) as caught:
        find_layers(model)

    assert caught.value.detail == (
        "model: no quantizable layer: Conv, ConvTranspose, Gemm, MatMul or LSTM with a constant float32 weight expected "
        f"(outside of If and Loop), found {found}"
    )
    assert caught.value.fix == fix


@pytest.mark.parametrize("maker", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_model_is_refused_before_it_has_layers(maker: ModelMaker, tmp_path: Path) -> None:
    onnx.save(maker(), tmp_path / "model.onnx")

    with pytest.raises(InvalidModelError) as caught:
        find_layers(prepare(read_model(tmp_path / "model.onnx")).model)

    assert caught.value.detail
    assert caught.value.fix.endswith(".")


LSTM = """g (float[T,N,8] x{more}) => (float[T,N,4] y, float[1,N,4] last, float[4,3] z) {{
    all, h, c = LSTM <hidden_size = 4{layout}> (x, {w}, r)
    y = Squeeze (all, one)
    last = Identity (h)
    z = MatMul (v, u)
}}"""


def lstm(layout: str = "", *, has_constant_weights: bool = True) -> onnx.ModelProto:
    more = "" if has_constant_weights else ", float[1,16,8] given"
    text = LSTM.format(more=f"{more}, float[4,2] v", layout=layout, w="w" if has_constant_weights else "given")
    model = model_from_text(text, {"w": (1, 16, 8), "r": (1, 16, 4), "u": (2, 3)})
    model.graph.initializer.append(onnx.helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1]))
    return model


def test_an_lstm_with_constant_weights_is_a_layer_of_its_first_output_that_is_read() -> None:
    layer = layers_of(lstm(), x=(5, 1, 8))["all"]
    assert (layer.op_type, layer.kind, layer.inputs, layer.weight) == ("LSTM", LayerKind.RECURRENT, ("x",), None)
    assert layer.weight_count == 16 * (8 + 4)
    unread = lstm()
    del unread.graph.node[1], unread.graph.output[0]
    assert "last" in layers_of(unread)  # what Identity had called it


def test_an_lstm_with_batches_first_or_computed_weights_is_none() -> None:
    for model in (lstm(", layout = 1"), lstm(has_constant_weights=False)):
        named = onnx.shape_inference.infer_shapes(model)
        for node in named.graph.node:
            node.name = node.output[0]
        assert [layer.op_type for layer in find_layers(named)] == ["MatMul"]
