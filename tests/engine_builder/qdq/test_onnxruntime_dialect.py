"""The explicit graph computes what fake quantization at the places listed in ``rewrite`` computes, in any mixture of precisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.graph.layers import Layer, find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from engine_builder.errors import BuildError
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from tests.engine_builder.fake_quantized import (
    ATTENTION,
    GEMMS,
    MODELS,
    RESIDUAL,
    Tensors,
    interpret,
    measured_ranges,
    model_of,
    run,
    samples_of,
    session_of,
)
from tests.this_processor import EXACT_ANYWHERE, EXACT_HERE, EXACT_SCHEMES


def quantized_of(layers: Sequence[Layer], names: Sequence[str] | None = None) -> dict[str, Precision]:
    return {layer.name: Precision.INT8 for layer in layers if names is None or layer.name in names}


def fused_ops(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return the operators that onnxruntime runs with its default optimizations."""
    session_of(model, optimized=True, dump=folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def mixtures(text: str) -> list[tuple[str, ...]]:
    """Return every subset of up to six layers, or a seeded draw of 64 of them."""
    names = [layer.name for layer in find_layers(model_of(text))]
    subsets = [
        tuple(name for name, chosen in zip(names, flags, strict=True) if chosen) for flags in product((True, False), repeat=len(names))
    ]
    if len(subsets) <= 64:
        return subsets
    return [subsets[index] for index in np.random.default_rng(0).choice(len(subsets), 64, replace=False)]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "scheme", [ONNXRUNTIME_CPU_SCHEME, EXACT_ANYWHERE, TENSORRT_SCHEME], ids=["onnxruntime", "any processor", "tensorrt"]
)
def test_every_mixture_equals_fake_quantization_at_the_same_places(kind: str, scheme: Scheme) -> None:
    model = model_of(MODELS[kind])
    layers = find_layers(model)
    feeds = samples_of(model)
    ranges = measured_ranges(model, feeds)
    for names in mixtures(MODELS[kind]):
        low = [layer for layer in layers if layer.name in names]
        expected = interpret(model, feeds, low, ranges, scheme)
        explicit = rewrite(model, layers, quantized_of(layers, names), ranges, scheme)
        onnx.checker.check_model(explicit, full_check=True)
        for name, found in run(explicit, feeds, optimized=False).items():
            difference = np.abs(found - expected[name])
            # Sums in another order differ by float rounding, which turns a few values exactly between two levels: one level each.
            step = max((high - low) / 127 for low, high in ranges.values())
            assert difference.max() <= 2 * step, (names, name)
            assert np.median(difference) < 1e-3 * step, (names, name)
            assert np.mean(difference > 0.1 * step) < 0.05, (names, name)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("scheme", EXACT_SCHEMES, ids=lambda scheme: "any processor" if scheme.bounds_pairs else "this processor")
def test_optimizations_change_the_result_by_rounding_only(kind: str, scheme: Scheme) -> None:
    model = model_of(MODELS[kind])
    layers = find_layers(model)
    feeds = samples_of(model)
    ranges = measured_ranges(model, feeds)
    for names in mixtures(MODELS[kind])[:16]:
        explicit = rewrite(model, layers, quantized_of(layers, names), ranges, scheme)
        plain = run(explicit, feeds, optimized=False)
        for name, found in run(explicit, feeds, optimized=True).items():
            low, high = ranges[name]
            # One level of the output, and what one level of an earlier tensor becomes on its way there.
            assert np.abs(found - plain[name]).max() <= 3 * (high - low) / 255, (names, name)
            assert np.mean(np.abs(found - plain[name])) <= 0.1 * (high - low) / 255, (names, name)


def test_all_quantized_residual_model_runs_in_integers_throughout(tmp_path: Path) -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    ops = fused_ops(
        rewrite(model, layers, quantized_of(layers), measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME), tmp_path
    )
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (3, 1, 1)
    assert not ops.keys() & {"Conv", "Add", "Gemm", "Relu", "Clip"}
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"]) == (1, 1)  # at the model's input and output alone: nothing in between


def test_quantized_products_run_as_integer_products(tmp_path: Path) -> None:
    model = model_of(ATTENTION)
    layers = find_layers(model)
    quantized = quantized_of(layers, ["q", "k", "v", "scores", "context"])
    ops = fused_ops(rewrite(model, layers, quantized, measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME), tmp_path)
    assert ops["MatMulIntegerToFloat"] + ops["QLinearMatMul"] == 5
    assert "MatMul" not in ops


def test_float_layers_between_quantized_ones_stay_float(tmp_path: Path) -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    quantized = quantized_of(layers, ["conv1", "add", "gemm"])
    ops = fused_ops(rewrite(model, layers, quantized, measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME), tmp_path)
    assert ops["QLinearConv"] == 1
    assert ops["Conv"] + ops["FusedConv"] == 2
    assert "LeakyRelu" not in ops  # the identity that keeps them float costs nothing


def test_a_tensor_with_quantized_and_float_readers_is_quantized_for_the_quantized_one_alone() -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    explicit = rewrite(model, layers, quantized_of(layers, ["conv3"]), measured_ranges(model, samples_of(model)), TENSORRT_SCHEME)
    nodes = {node.name: node for node in explicit.graph.node}
    assert nodes["conv2"].input[0] == "r1"
    assert nodes["conv3"].input[0] == "r1_dequantized"


def test_quantized_readers_of_one_tensor_share_one_pair() -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    explicit = rewrite(model, layers, quantized_of(layers, ["conv2", "conv3"]), measured_ranges(model, samples_of(model)), TENSORRT_SCHEME)
    nodes = {node.name: node for node in explicit.graph.node}
    assert nodes["conv2"].input[0] == nodes["conv3"].input[0] == "r1_dequantized"
    assert Counter(node.op_type for node in explicit.graph.node)["QuantizeLinear"] == 1


def test_residual_add_gets_qdq_on_both_inputs() -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    explicit = rewrite(model, layers, quantized_of(layers, ["add"]), measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME)
    add = next(node for node in explicit.graph.node if node.name == "add")
    assert list(add.input) == ["r2_dequantized", "c3_dequantized"]


def test_graph_inputs_and_outputs_keep_name_type_and_shape() -> None:
    for text in MODELS.values():
        model = model_of(text)
        layers = find_layers(model)
        explicit = rewrite(model, layers, quantized_of(layers), measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME)
        assert list(explicit.graph.input) == list(model.graph.input)
        assert list(explicit.graph.output) == list(model.graph.output)
        assert [opset.domain for opset in explicit.opset_import] == [""]


def test_moved_tensors_take_the_range_of_what_they_move() -> None:
    model = model_of(RESIDUAL)
    ranges = ranges_of_moved_tensors(model, {"r3": (0.0, 4.0), "f": (0.5, 3.0), "r1": (0.0, 1.0)})
    assert ranges == {"r3": (0.0, 4.0), "p": (0.0, 4.0), "f": (0.0, 4.0), "r1": (0.0, 1.0)}


def test_what_is_left_of_a_mask_keeps_its_own_range() -> None:
    ranges = {"r3": (-3.4e38, 4.0), "f": (0.5, 3.0), "r1": (0.0, 1.0)}
    assert ranges_of_moved_tensors(model_of(RESIDUAL), ranges) == ranges


def test_a_dead_channel_keeps_its_bias() -> None:
    model = model_of(RESIDUAL)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w3")
    values = numpy_helper.to_array(weight).copy()
    values[1] = 0.0
    weight.CopyFrom(numpy_helper.from_array(values, "w3"))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(np.array([0.1, 7.0, -0.1, 0.0], dtype=np.float32), "b3"))
    layers = find_layers(model)
    feeds = samples_of(model)
    ranges = measured_ranges(model, feeds)
    explicit = rewrite(model, layers, quantized_of(layers, ["conv3"]), ranges, EXACT_HERE)
    expected = interpret(model, feeds, [layer for layer in layers if layer.name == "conv3"], ranges, EXACT_HERE)["y"]
    assert np.abs(run(explicit, feeds, optimized=True)["y"] - expected).max() < 0.05


def test_a_subgraph_reads_the_quantized_tensor_that_it_captures() -> None:
    model = model_of(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        branch (float[N,3,4,4] x, bool flip) => (float[N,2,4,4] y)
        <float[2,3,1,1] w>
        {
            [conv] c = Conv(x, w)
            y = If (flip) <
                then_branch = negative () => (float[N,2,4,4] t) { t = Neg(c) },
                else_branch = same () => (float[N,2,4,4] e) { e = Abs(c) }
            >
        }
        """
    )
    layers = find_layers(model)
    feeds: Tensors = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    explicit = rewrite(model, layers, quantized_of(layers), {"x": (-3.0, 3.0), "c": (-1.0, 1.0)}, ONNXRUNTIME_CPU_SCHEME)
    onnx.checker.check_model(explicit, full_check=True)
    found = run(explicit, feeds | {"flip": np.array(True)}, optimized=False)["y"]
    assert len(np.unique(found)) < found.size  # only values of the grid of c come out
    assert np.allclose(found / (2 / 255), np.round(found / (2 / 255)), atol=1e-3)


def test_names_that_the_model_already_bears_are_avoided() -> None:
    model = model_of(GEMMS)
    layers = find_layers(model)
    explicit = rewrite(model, layers, quantized_of(layers), measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME)
    names = [tensor.name for tensor in explicit.graph.initializer]
    assert len(names) == len(set(names))
    assert {"x_scale", "x_scale_1", "x_zero_point_1"} <= set(names)


def test_two_runs_give_identical_bytes_and_leave_the_model_alone() -> None:
    model = model_of(RESIDUAL)
    before = model.SerializeToString(deterministic=True)
    layers = find_layers(model)
    ranges = measured_ranges(model, samples_of(model))
    first, second = (rewrite(model, layers, quantized_of(layers), ranges, ONNXRUNTIME_CPU_SCHEME) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert model.SerializeToString(deterministic=True) == before


def test_nothing_quantized_gives_the_model_itself_without_noted_shapes() -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    explicit = rewrite(model, layers, {layer.name: Precision.FP32 for layer in layers}, {}, ONNXRUNTIME_CPU_SCHEME)
    del model.graph.value_info[:]
    assert explicit.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_shapes_of_inner_tensors_are_not_noted() -> None:
    model = model_of(ATTENTION)
    layers = find_layers(model)
    assert model.graph.value_info
    assert not rewrite(
        model, layers, quantized_of(layers), measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME
    ).graph.value_info


def test_unknown_layer_precision_or_range_is_refused() -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    with pytest.raises(BuildError, match="'conv9' is not in the model"):
        rewrite(model, layers, {"conv9": Precision.INT8}, {}, ONNXRUNTIME_CPU_SCHEME)
    with pytest.raises(BuildError, match="precision fp8, expected fp32 or one that multiplies integers"):
        rewrite(model, layers, {"conv1": Precision.FP8}, {}, ONNXRUNTIME_CPU_SCHEME)
    with pytest.raises(BuildError, match="no range was measured"):
        rewrite(model, layers, {"conv1": Precision.INT8}, {}, ONNXRUNTIME_CPU_SCHEME)
