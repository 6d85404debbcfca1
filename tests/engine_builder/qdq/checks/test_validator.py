"""Each trap of TensorRT's parser and builder is refused by name, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.checks.validator import validate_tensorrt
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.engine_builder.qdq.networks import ATTENTION, BLOCKS, network, nodes_of
from tests.model_text import model_from_text

BLOCKS_NETWORK, ATTENTION_NETWORK = network(BLOCKS), network(ATTENTION)
Spoil = Callable[[onnx.ModelProto], None]


def blocks() -> onnx.ModelProto:
    return rewrite_tensorrt(BLOCKS_NETWORK.model, BLOCKS_NETWORK.layers, BLOCKS_NETWORK.all_in(Precision.INT8), BLOCKS_NETWORK.ranges)


def attention(precision: Precision) -> onnx.ModelProto:
    return rewrite_tensorrt(
        ATTENTION_NETWORK.model, ATTENTION_NETWORK.layers, ATTENTION_NETWORK.all_in(precision), ATTENTION_NETWORK.ranges
    )


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    """Replace a constant."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def set_attribute(model: onnx.ModelProto, node: str, name: str, value: int) -> None:
    found = nodes_of(model)[node]
    kept = [attribute for attribute in found.attribute if attribute.name != name]
    del found.attribute[:]
    found.attribute.extend([*kept, helper.make_attribute(name, value)])


def unsigned_zero_point(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_zero_point", np.zeros((), np.uint8))


def no_zero_point(model: onnx.ModelProto) -> None:
    nodes = nodes_of(model)
    for name in ("r1_int8_QuantizeLinear", "r1_int8_DequantizeLinear"):
        del nodes[name].input[2]


def shifted_zero_point(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_zero_point", np.array(3, np.int8))


def sixteen_bits(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21
    put(model, "r1_int8_zero_point", np.zeros((), np.int16))


def scale_of_zero(model: onnx.ModelProto) -> None:
    put(model, "w2_scale", np.array([1.0] * 15 + [0.0], np.float16))


def negative_scale(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_scale", np.array(-0.5, np.float16))


def scale_that_is_no_number(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_scale", np.array(np.nan, np.float16))


def channels_of_an_activation(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_scale", np.ones(16, np.float16))
    put(model, "r1_int8_zero_point", np.zeros(16, np.int8))


def channels_that_are_summed(model: onnx.ModelProto) -> None:
    set_attribute(model, "w2_DequantizeLinear", "axis", 1)


def quantized_bias(model: onnx.ModelProto) -> None:
    conv = nodes_of(model)["conv2"]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(16, np.int8), "q"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float16), "qs"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "qs"], ["qb"], name="bias"))
    conv.input[2] = "qb"


def bias_of_32_bits(model: onnx.ModelProto) -> None:
    quantized_bias(model)
    put(model, "q", np.ones(16, np.int32))


def float_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float16), "plain"))
    nodes_of(model)["conv2"].input[1] = "plain"


def float_input(model: onnx.ModelProto) -> None:
    nodes_of(model)["conv2"].input[0] = "r1"


def two_formats(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_zero_point", np.zeros((), ml_dtypes.float8_e4m3fn))


def five_bits_of_exponent(model: onnx.ModelProto) -> None:
    put(model, "r1_int8_zero_point", np.zeros((), ml_dtypes.float8_e5m2))


def transposed(model: onnx.ModelProto) -> None:
    node = nodes_of(model)["conv4"]
    node.op_type = "ConvTranspose"


def no_name(model: onnx.ModelProto) -> None:
    nodes_of(model)["pool"].name = ""


def name_of_another(model: onnx.ModelProto) -> None:
    nodes_of(model)["pool"].name = "conv2"


def output_of_another_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def float_constant(model: onnx.ModelProto) -> None:
    put(model, nodes_of(model)["clip2"].input[2], np.array(6.0, np.float32))


TRAPS: dict[Spoil, str] = {
    unsigned_zero_point: "'r1_int8_QuantizeLinear'.*uint8.*saturate",
    no_zero_point: "'r1_int8_QuantizeLinear'.*no zero point",
    shifted_zero_point: "'r1_int8_QuantizeLinear'.*zero point 3, expected 0",
    sixteen_bits: "'r1_int8_QuantizeLinear'.*int16",
    scale_of_zero: "'w2_DequantizeLinear'.*scale 0, expected a positive",
    negative_scale: "'r1_int8_QuantizeLinear'.*scale -0.5",
    scale_that_is_no_number: "'r1_int8_QuantizeLinear'.*scale nan",
    channels_of_an_activation: "'r1_int8_QuantizeLinear'.*16 scales on the computed tensor 'r1'",
    channels_that_are_summed: "'conv2'.*axis 1, which it sums over",
    quantized_bias: "'conv2'.*quantized bias 'qb'",
    bias_of_32_bits: "'bias'.*int32.*no bias",
    float_weight: "'conv2'.*'r1_int8_dequantized' is quantized and 'plain' is not",
    float_input: "'conv2'.*quantized weight with a float input",
    two_formats: "'conv2'.*operands in float8e4m3fn and int8",
    five_bits_of_exponent: "'r1_int8_QuantizeLinear'.*float8e5m2",
    transposed: "'conv4' .ConvTranspose.*at run time",
    no_name: "without a name .MaxPool",
    name_of_another: "'conv2'.*a second node of this name",
    output_of_another_type: "output 'y': computed as float, expected float16",
    float_constant: "'clip2'.*'c2' is float16 and .* is float, expected operands of one type",
}


@pytest.mark.parametrize("spoil", TRAPS, ids=lambda spoil: spoil.__name__)
def test_a_trap_is_refused_by_name_with_what_to_do(spoil: Spoil) -> None:
    model = blocks()
    validate_tensorrt(model, compute_capability=(8, 9))
    spoil(model)
    with pytest.raises(BuildError, match=TRAPS[spoil]) as error:
        validate_tensorrt(model, compute_capability=(8, 9))
    assert error.value.fix


def test_fp8_needs_a_gpu_that_has_it() -> None:
    model = attention(Precision.FP8)
    validate_tensorrt(model, compute_capability=(8, 9))
    validate_tensorrt(model, compute_capability=None)
    with pytest.raises(BuildError, match=r"FP8 for compute capability 8\.6, expected 8\.9"):
        validate_tensorrt(model, compute_capability=(8, 6))


def int8_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float16), "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "z"))
    pair = [
        helper.make_node("QuantizeLinear", ["r0", "s", "z"], ["r0q"], name="Q"),
        helper.make_node("DequantizeLinear", ["r0q", "s", "z"], ["r0d"], name="D"),
    ]
    place = next(index for index, node in enumerate(model.graph.node) if node.name == "up")
    for node in reversed(pair):
        model.graph.node.insert(place, node)
    nodes_of(model)["up"].input[0] = "r0d"


def one_block(model: onnx.ModelProto) -> None:
    set_attribute(model, "wu_DequantizeLinear", "block_size", 64)
    put(model, "wu_scale", np.ones((1, 128), np.float16))


def one_scale_a_channel(model: onnx.ModelProto) -> None:
    set_attribute(model, "wu_DequantizeLinear", "axis", 1)
    set_attribute(model, "wu_DequantizeLinear", "block_size", 0)
    put(model, "wu_scale", np.ones(128, np.float16))


def unsigned_levels(model: onnx.ModelProto) -> None:
    put(model, "wu_quantized", np.zeros((64, 128), ml_dtypes.uint4))


def read_by_a_sum(model: onnx.ModelProto) -> None:
    node = nodes_of(model)["up"]
    node.op_type = "Add"


INT4_TRAPS: dict[Spoil, str] = {
    int8_input: "'up'.*int4 weight with an input in int8",
    one_block: "'up'.*block_size 64 and 1 block",
    one_scale_a_channel: "'up'.*block_size 0 and 1 block",
    unsigned_levels: "'wu_DequantizeLinear'.*uint4",
    read_by_a_sum: "'up' .Add.*reads the int4 tensor 'wu_dequantized'",
}


@pytest.mark.parametrize("spoil", INT4_TRAPS, ids=lambda spoil: spoil.__name__)
def test_int4_is_the_weight_of_a_product_in_blocks_and_nothing_else(spoil: Spoil) -> None:
    model = attention(Precision.INT4)
    validate_tensorrt(model, compute_capability=(8, 9))
    spoil(model)
    with pytest.raises(BuildError, match=INT4_TRAPS[spoil]):
        validate_tensorrt(model, compute_capability=(8, 9))


def test_an_int4_convolution_is_refused() -> None:
    text = "g (float[N,64,4,4] x) => (float[N,2,4,4] y) { w = DequantizeLinear<axis=1, block_size=32>(q, s) y = Conv(x, w) }"
    model = model_from_text(text, {"s": (2, 2, 1, 1)}, opset=21, ir_version=10)
    put(model, "s", np.ones((2, 2, 1, 1), np.float32))
    model.graph.initializer.append(helper.make_tensor("q", TensorProto.INT4, [2, 64, 1, 1], [1] * 128))
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    with pytest.raises(BuildError, match=r"'n1' .Conv.*int4 operands"):
        validate_tensorrt(model, compute_capability=None)


def test_a_matrix_that_sums_over_its_scales_is_refused() -> None:
    model = attention(Precision.INT8)
    set_attribute(model, "wu_DequantizeLinear", "axis", 0)
    put(model, "wu_scale", np.ones(64, np.float16))
    put(model, "wu_zero_point", np.zeros(64, np.int8))
    with pytest.raises(BuildError, match=r"'up'.*axis 0, which it sums over.*axis 1"):
        validate_tensorrt(model, compute_capability=None)


def test_half_an_attention_product_is_refused() -> None:
    model = attention(Precision.INT8)
    node = nodes_of(model)["context"]
    node.input[1] = nodes_of(model)[f"{node.input[1].removesuffix('_dequantized')}_QuantizeLinear"].input[0]
    with pytest.raises(BuildError, match=r"'context'.*is quantized and 'v1' is not"):
        validate_tensorrt(model, compute_capability=None)
