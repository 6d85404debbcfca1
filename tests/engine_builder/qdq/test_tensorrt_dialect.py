"""What the TensorRT dialect writes where: pairs, types, Casts, names."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.checks.validator import validate_tensorrt
from engine_builder.qdq.tensorrt_dialect import kept_in_float32, rewrite_tensorrt
from tests.engine_builder.fake_quantized import model_of, run
from tests.engine_builder.qdq.networks import ATTENTION, BLOCKS, FLOATS, TEXTS, Network, network, nodes_of
from tests.model_text import ModelMaker, one_batch
from tests.model_text import run as run_float
from tests.models import AWKWARD
from tests.probed_models import probed


def explicit(found: Network, assignment: dict[str, Precision], baseline: Precision = Precision.FP16) -> onnx.ModelProto:
    model = rewrite_tensorrt(found.model, found.layers, assignment, found.ranges, baseline=baseline)
    onnx.checker.check_model(model, full_check=True)
    validate_tensorrt(model, compute_capability=(8, 9))
    return model


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


@pytest.fixture(scope="module")
def blocks() -> Network:
    return network(BLOCKS)


@pytest.fixture(scope="module")
def attention() -> Network:
    return network(ATTENTION)


def test_int8_is_signed_symmetric_with_one_scale_a_tensor_and_one_a_channel(blocks: Network) -> None:
    model = explicit(blocks, {"conv2": Precision.INT8})
    nodes = nodes_of(model)
    quantize, weight = nodes["r1_int8_QuantizeLinear"], nodes["w2_DequantizeLinear"]
    assert constant(model, quantize.input[2]).dtype == np.int8
    assert constant(model, quantize.input[1]).shape == ()
    assert constant(model, quantize.input[1]).dtype == np.float16
    assert constant(model, weight.input[0]).dtype == np.int8
    assert constant(model, weight.input[1]).shape == (16,)
    assert not constant(model, weight.input[2]).any()
    assert [nodes["conv2"].input[0], nodes["conv2"].input[1]] == ["r1_int8_dequantized", "w2_dequantized"]


def test_biases_and_outputs_are_never_quantized(blocks: Network) -> None:
    model = explicit(blocks, blocks.all_in(Precision.INT8))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert types[node.input[2]] == TensorProto.FLOAT16
    assert TensorProto.INT32 not in types.values()


def test_a_sum_reads_the_stored_copy_of_the_block_input_and_the_branch_in_float(blocks: Network) -> None:
    nodes = nodes_of(explicit(blocks, blocks.all_in(Precision.INT8)))
    assert list(nodes["sum1"].input) == ["c3", "r1_int8_dequantized"]
    assert nodes["conv2"].input[0] == "r1_int8_dequantized"


def test_readers_in_one_format_share_a_pair_and_other_readers_keep_the_tensor(blocks: Network) -> None:
    model = explicit(blocks, {"conv4": Precision.INT8, "conv5": Precision.FP8, "conv2": Precision.INT8})
    nodes = nodes_of(model)
    assert nodes["conv4"].input[0] == "p_int8_dequantized"
    assert nodes["conv5"].input[0] == "p_fp8_dequantized"
    assert nodes["sum1"].input[1] == "r1"
    both = nodes_of(explicit(blocks, {"conv4": Precision.INT8, "conv5": Precision.INT8}))
    assert both["conv4"].input[0] == both["conv5"].input[0]


def test_fp8_has_one_scale_a_weight(blocks: Network) -> None:
    model = explicit(blocks, {"conv3": Precision.FP8})
    weight = nodes_of(model)["w3_DequantizeLinear"]
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == weight.input[0])
    assert stored.data_type == TensorProto.FLOAT8E4M3FN
    assert constant(model, weight.input[1]).shape == ()
    peak = np.abs(constant(blocks.model, "w3")).max()
    assert float(constant(model, weight.input[1])) == pytest.approx(peak / 448, rel=2**-11)  # the scale is rounded to fp16


def test_int4_is_weight_only_in_blocks_of_32_without_a_zero_point(attention: Network) -> None:
    model = explicit(attention, {"up": Precision.INT4, "q": Precision.INT8})
    weight = nodes_of(model)["wu_DequantizeLinear"]
    attributes = {attribute.name: attribute.i for attribute in weight.attribute}
    assert attributes == {"axis": 0, "block_size": 32}
    assert len(weight.input) == 2
    assert constant(model, weight.input[1]).shape == (2, 128)
    assert nodes_of(model)["up"].input[0] == "r0"
    assert {entry.version for entry in model.opset_import} == {21}


def test_attention_quantizes_all_four_tensors_and_softmax_has_a_range_of_one(attention: Network) -> None:
    for precision, top in ((Precision.INT8, 127), (Precision.FP8, 448)):
        model = explicit(attention, {"scores": precision, "context": precision})
        nodes = nodes_of(model)
        for name in ("scores", "context"):
            assert all(tensor.endswith(f"{precision}_dequantized") for tensor in nodes[name].input)
        scale = constant(model, nodes[f"p0_{precision}_QuantizeLinear"].input[1])
        assert float(scale) == pytest.approx(1 / top, rel=2**-11)  # fp16


@pytest.mark.parametrize("baseline", [Precision.FP16, Precision.BF16, Precision.FP32])
@pytest.mark.parametrize("kind", TEXTS)
def test_inputs_and_outputs_keep_their_names_types_and_axes(kind: str, baseline: Precision) -> None:
    found = network(TEXTS[kind])
    model = explicit(found, {}, baseline)
    assert list(model.graph.input) == list(found.model.graph.input)
    assert list(model.graph.output) == list(found.model.graph.output)
    assert ("Cast" in {node.op_type for node in model.graph.node}) == (baseline is not Precision.FP32)


def test_an_fallback_region_is_cast_into_and_out_of_with_its_own_constants(blocks: Network) -> None:
    for precision, kind in ((Precision.FP32, TensorProto.FLOAT), (Precision.BF16, TensorProto.BFLOAT16)):
        model = explicit(blocks, {"conv3": precision})
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        nodes = nodes_of(model)
        assert {types[name] for name in nodes["conv3"].input[1:]} == {kind}
        assert {types[name] for name in nodes["conv2"].input[1:]} == {TensorProto.FLOAT16}
        casts = {node.name for node in model.graph.node if node.op_type == "Cast"}
        assert len(casts) == 4  # the graph's input and output, the FP32 fallback region's input and output


def test_a_constant_that_two_types_read_is_converted_for_each(blocks: Network) -> None:
    text = BLOCKS.replace("[relu3] r3 = Relu(s1)", "[relu3] r3 = Clip(s1, zero, six)")
    found = network(text)
    model = explicit(found, {"conv2": Precision.FP32})
    nodes = nodes_of(model)
    assert nodes["clip2"].input[2] != nodes["relu3"].input[2]


def test_every_node_has_a_name_of_its_own_and_two_runs_give_identical_bytes(blocks: Network) -> None:
    before = blocks.model.SerializeToString(deterministic=True)
    first, second = (explicit(blocks, blocks.all_in(Precision.INT8)) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    names = Counter(node.name for node in first.graph.node)
    assert "" not in names
    assert max(names.values()) == 1
    assert blocks.model.SerializeToString(deterministic=True) == before


def test_scales_of_dead_channels_and_constant_tensors_stay_positive(blocks: Network) -> None:
    dead = onnx.ModelProto()
    dead.CopyFrom(blocks.model)
    tensor = next(tensor for tensor in dead.graph.initializer if tensor.name == "w2")
    weight = numpy_helper.to_array(tensor).copy()
    weight[3] = 0
    tensor.CopyFrom(numpy_helper.from_array(weight, "w2"))
    model = rewrite_tensorrt(dead, blocks.layers, {"conv2": Precision.INT8}, {**blocks.ranges, "r1": (0.0, 0.0)})
    validate_tensorrt(model, compute_capability=None)
    assert constant(model, "w2_scale").min() > 0
    assert constant(model, "r1_int8_scale") > 0


def test_a_tensor_beyond_fp16_and_its_readers_stay_in_float32(blocks: Network) -> None:
    ranges = {**blocks.ranges, "r1": (0.0, 1e5)}
    kept = kept_in_float32(blocks.model, ranges)
    assert {"relu1", "conv2", "sum1"} <= kept.keys()
    assert "1" not in {name[-1] for name in kept if name.startswith("gemm")}
    model = rewrite_tensorrt(blocks.model, blocks.layers, {}, ranges)
    validate_tensorrt(model, compute_capability=None)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types[nodes_of(model)["conv2"].input[1]] == TensorProto.FLOAT
    assert types[nodes_of(model)["conv4"].input[1]] == TensorProto.FLOAT16


def test_smoothed_inputs_are_multiplied_before_they_are_rounded(attention: Network) -> None:
    low, high = (2 * end for end in attention.ranges["r0"])
    factors = tuple(np.linspace(0.5, 2, 64, dtype=np.float32).tolist())
    smooth_quant = SmoothQuantScaling("r0", ("up",), factors, low, high)
    model = rewrite_tensorrt(attention.model, attention.layers, {"up": Precision.INT8}, attention.ranges, [smooth_quant])
    validate_tensorrt(model, compute_capability=None)
    nodes = nodes_of(model)
    assert nodes["up"].input[0] == "r0_smoothed_int8_dequantized"
    plain = run(rewrite_tensorrt(attention.model, attention.layers, {}, attention.ranges), attention.feeds, optimized=False)["y"]
    found = run(model, attention.feeds, optimized=False)["y"]
    assert np.linalg.norm(found - plain) < 0.05 * np.linalg.norm(plain)  # 8-bit rounding of one input and one weight


@pytest.mark.parametrize("name", [name for name in AWKWARD if name not in ("duplicate_node_names", "bf16_inside")])
def test_awkward_models_in_fp16_give_what_they_give_in_float(name: str) -> None:
    maker: ModelMaker = AWKWARD[name]
    model = maker()
    case = probed(model, one_batch(model))
    half = rewrite_tensorrt(case.model, case.layers, {}, case.ranges)
    onnx.checker.check_model(half, full_check=True)
    validate_tensorrt(half, compute_capability=(7, 5))
    for found, expected in zip(run_float(half, case.feeds), case.outputs(), strict=True):
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        if np.asarray(expected).dtype.kind == "f":
            wide = np.asarray(expected, dtype=np.float64)
            # Some ten roundings to 11 bits, one after another.
            assert np.linalg.norm(np.asarray(found, dtype=np.float64) - wide) <= 5e-3 * np.linalg.norm(wide)


def test_what_cannot_be_written_is_refused(blocks: Network) -> None:
    with pytest.raises(BuildError, match="'conv9' is not in the model"):
        explicit(blocks, {"conv9": Precision.INT8})
    with pytest.raises(BuildError, match=r"'conv2' \(Conv\) has precision int4"):
        explicit(blocks, {"conv2": Precision.INT4})
    with pytest.raises(BuildError, match="no range was measured"):
        rewrite_tensorrt(blocks.model, blocks.layers, {"conv2": Precision.INT8}, {})
    with pytest.raises(BuildError, match="expected fp16, bf16 or fp32"):
        explicit(blocks, {}, Precision.INT8)
    floats = model_of(FLOATS)
    with pytest.raises(BuildError, match="'conv1': not in the model"):
        rewrite_tensorrt(floats, blocks.layers, {}, blocks.ranges)
