from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.errors import InvalidModelError
from calibration.graph.opset import opset_version
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.opset_conversion import OPSET
from tests import models, unusable_models
from tests.model_text import ModelMaker, cnn, fixed_batch, halved, model_from_text, one_batch, run
from tests.models import AWKWARD

EVERY = {**AWKWARD, "duplicate_node_names": models.duplicate_node_names, "bf16_inside": models.bf16_inside}


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD)
def test_prepared_model_computes_the_same(maker: ModelMaker) -> None:
    model = maker()
    feeds = one_batch(model)

    expected, found = run(model, feeds), run(prepare(model).model, feeds)

    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    tolerance = 5e-3 if half else 1e-5  # float16 has 11 bits; float32 may add in another order
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("maker", EVERY.values(), ids=EVERY)
def test_prepared_model_is_in_the_one_form(maker: ModelMaker) -> None:
    result = prepare(maker()).model

    onnx.checker.check_model(result, full_check=True)
    assert opset_version(result) >= OPSET
    assert not result.functions
    names = [node.name for node in result.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert {node.domain for node in result.graph.node} == {""}
    assert {tensor.data_type for tensor in result.graph.initializer} <= {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT64,
        onnx.TensorProto.BOOL,
    }


@pytest.mark.parametrize("maker", EVERY.values(), ids=EVERY)
def test_inputs_and_outputs_keep_names_types_and_axes(maker: ModelMaker) -> None:
    model = maker()
    weights = {tensor.name for tensor in model.graph.initializer}

    result = prepare(model).model

    assert list(result.graph.input) == [value for value in model.graph.input if value.name not in weights]
    assert list(result.graph.output) == list(model.graph.output)


@pytest.mark.parametrize("maker", EVERY.values(), ids=EVERY)
def test_the_users_model_is_left_as_it_is(maker: ModelMaker) -> None:
    model = maker()
    before = model.SerializeToString(deterministic=True)

    prepare(model)

    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("maker", EVERY.values(), ids=EVERY)
def test_preparing_twice_gives_the_same_bytes(maker: ModelMaker) -> None:
    first, second = prepare(maker()), prepare(maker())

    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.notes == second.notes


def test_plain_model_is_left_alone() -> None:
    prepared = prepare(cnn())

    assert ops(prepared.model) == ops(cnn())
    assert prepared.notes == ()
    assert prepared.float_type is Precision.FP32


@pytest.mark.parametrize(("maker", "opset"), [(models.opset_9, 9), (models.opset_10, 10), (models.opset_11, 11)])
def test_old_opset_is_converted_and_said_so(maker: ModelMaker, opset: int) -> None:
    prepared = prepare(maker())

    assert f"opset {opset} converted to {OPSET}" in prepared.notes
    assert opset_version(prepared.model) == OPSET


def test_newer_opset_is_kept() -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) y = Gelu(h) }", {"w": (6, 3)}, opset=20)

    assert opset_version(prepare(model).model) == 20


@pytest.mark.parametrize("maker", [models.weight_behind_constant, models.weight_behind_transpose])
def test_weight_behind_constant_nodes_becomes_an_initializer(maker: ModelMaker) -> None:
    result = prepare(maker()).model

    assert ops(result) == ["MatMul"]
    assert result.graph.node[0].input[1] in initializers(result)


def test_shared_weight_and_bias_become_one_per_layer() -> None:
    prepared = prepare(models.shared_weight())

    gemms = [node for node in prepared.model.graph.node if node.op_type == "Gemm"]
    values = initializers(prepared.model)
    parameters = [name for node in gemms for name in node.input[1:]]
    assert len(set(parameters)) == 4
    np.testing.assert_array_equal(values[gemms[0].input[1]], values[gemms[1].input[1]])
    assert "'w' is shared; 1 layer got a copy of its own" in prepared.notes


def test_weight_that_a_subgraph_reads_too_is_copied() -> None:
    prepared = prepare(models.if_subgraph())

    assert "w" in initializers(prepared.model)
    assert next(node for node in prepared.model.graph.node if node.op_type == "MatMul").input[1] != "w"


def test_subgraphs_are_left_alone() -> None:
    result = prepare(models.loop_subgraph()).model

    body = next(node for node in result.graph.node if node.op_type == "Loop").attribute[0].g
    assert [node.op_type for node in body.node] == ["Identity", "MatMul", "Tanh"]


def test_batch_norm_is_folded_into_the_convolution() -> None:
    prepared = prepare(models.batch_norm())

    assert ops(prepared.model) == ["Conv", "Relu"]
    assert prepared.notes == ("folded into weights and biases: 1 BatchNormalization behind layers",)


def test_batch_norm_after_something_else_reads_the_convolution_stays() -> None:
    model = models.batch_norm()
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 4, 8, 8]))

    assert ops(prepare(model).model) == ["Conv", "BatchNormalization", "Relu"]


def test_constant_zero_pad_is_folded_into_the_convolution() -> None:
    prepared = prepare(models.pad_before_conv())

    assert ops(prepared.model) == ["Conv"]
    assert "1 Pad folded into the convolution after it" in prepared.notes


def test_pad_with_another_value_stays() -> None:
    model = models.pad_before_conv()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1.0, np.float32), "one"))
    next(node for node in model.graph.node if node.op_type == "Pad").input.append("one")

    result = prepare(model).model

    assert ops(result) == ["Pad", "Conv"]
    feeds = one_batch(model)
    np.testing.assert_array_equal(run(result, feeds)[0], run(model, feeds)[0])


def test_gemm_factors_are_multiplied_into_weight_and_bias() -> None:
    result = prepare(models.gemm_factors()).model

    gemm = next(node for node in result.graph.node if node.op_type == "Gemm")
    assert {attribute.name for attribute in gemm.attribute} == {"transA", "transB"}


def test_local_functions_are_inlined() -> None:
    prepared = prepare(models.local_function())

    assert ops(prepared.model) == ["MatMul", "Add", "Relu"] * 2
    assert "model-local functions inlined" in prepared.notes


def test_overridable_initializers_become_constants() -> None:
    prepared = prepare(models.overridable_initializers())

    assert [value.name for value in prepared.model.graph.input] == ["x"]
    assert "2 initializers listed as inputs made constant" in prepared.notes


@pytest.mark.parametrize(
    ("maker", "kind"), [(models.fp16, Precision.FP16), (models.fp16_inside, Precision.FP16), (models.bf16_inside, Precision.BF16)]
)
def test_half_precision_is_computed_in_float32(maker: ModelMaker, kind: Precision) -> None:
    prepared = prepare(maker())

    assert prepared.float_type is kind
    assert {array.dtype for array in initializers(prepared.model).values()} == {np.dtype(np.float32)}


def test_only_casts_at_the_ends_stay_in_a_half_precision_model() -> None:
    assert ops(prepare(models.fp16()).model) == ["Cast", *ops(cnn()), "Cast"]
    assert ops(prepare(models.fp16_inside()).model).count("Cast") == 1  # makes the float16 output


def test_half_precision_inside_a_subgraph_is_computed_in_float32() -> None:
    model = model_from_text(
        """g (float16[N,4] x) => (float16[N,4] y)
        <int64 trips = {3}, bool go = {1}> {
            h = MatMul(x, w)
            y = Loop(trips, go, h) <
                body = step (int64 i, bool c, float16[N,4] state) => (bool c_out, float16[N,4] next) {
                    c_out = Identity(c)
                    half = Cast<to=10>(i)
                    more = Add(state, half)
                    next = Tanh(more)
                }
            >
        }"""
    )
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float16)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    feeds = one_batch(model)

    result = prepare(model).model

    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run(result, feeds)[0], run(model, feeds)[0], atol=2e-3)  # float16 near 1


def test_fixed_shapes_are_known_throughout() -> None:
    result = prepare(fixed_batch()).model

    known = {value.name: value.type.tensor_type.shape for value in result.graph.value_info}
    for node in result.graph.node[:-1]:
        assert all(dim.HasField("dim_value") for dim in known[node.output[0]].dim)


def test_constant_that_would_bloat_the_model_stays_a_node() -> None:
    model = model_from_text(
        """g (float[N,4] x) => (float[N,4] y)
        <int64[2] shape = {1000, 1000}, int64 first = {0}> {
            h = MatMul(x, w)
            wide = ConstantOfShape(shape)
            number = Gather(wide, first)
            total = ReduceSum<keepdims=0>(number)
            y = Add(h, total)
        }""",
        {"w": (4, 4)},
    )

    assert ops(prepare(model).model) == ops(model)


def test_model_that_onnxruntime_cannot_run_is_refused() -> None:
    with pytest.raises(InvalidModelError) as caught:
        prepare(unusable_models.inner_sizes_differ())

    assert "cannot run it" in caught.value.detail
    assert "Incompatible dimensions for matrix multiplication" in caught.value.detail
    assert caught.value.fix == "Check that the model runs in onnxruntime (CPU) as it is, then upload it again."


def test_names_that_conversion_to_float32_would_give_may_be_the_users() -> None:
    model = model_from_text(
        """half (float16[N,4] x, float16[N,4] x_float32) => (float16[N,3] y) {
            sum = Add(x, x_float32)
            y_float32 = Relu(sum)
            product = MatMul(y_float32, w)
            y = Neg(product)
        }""",
        {"w": (4, 3)},
    )
    feeds = one_batch(model := halved(model, onnx.TensorProto.FLOAT16))

    for expected, found in zip(run(model, feeds), run(prepare(model).model, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)  # float16 has 11 bits


def test_a_copy_of_a_shared_weight_takes_no_inputs_name() -> None:
    model = model_from_text(
        """shared (float[N,4] x, float[N,4] w_second) => (float[N,4] y) {
            [first] a = MatMul(x, w)
            b = Add(a, w_second)
            [second] y = MatMul(b, w)
        }""",
        {"w": (4, 4)},
    )
    feeds = one_batch(model)
    np.testing.assert_allclose(run(prepare(model).model, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)  # float32 rounding


def test_constant_nodes_of_one_name_are_computed_once() -> None:
    model = model_from_text(
        """g (float[N,4] x) => (float[N,3] y) {
            [same] turned = Transpose(w)
            [same] halves = Mul(turned, half)
            [same] y = MatMul(x, halves)
        }""",
        {"w": (3, 4), "half": (1,)},
    )
    prepared = prepare(model).model
    assert ops(prepared) == ["MatMul"]
    for node in model.graph.node:
        node.name = ""  # onnxruntime refuses a name that several nodes have
    feeds = one_batch(model)
    np.testing.assert_allclose(run(prepared, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)  # float32 rounding


def test_an_output_that_is_an_input_and_declares_no_sizes_has_the_inputs() -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y, float[N,6] x) { y = MatMul(x, w) }", {"w": (6, 3)})
    model.graph.output[1].type.tensor_type.ClearField("shape")
    prepared = prepare(model).model
    assert prepared.graph.output[1] == prepared.graph.input[0]
    assert [dim.dim_param or dim.dim_value for dim in prepared.graph.input[0].type.tensor_type.shape.dim] == ["N", 6]
