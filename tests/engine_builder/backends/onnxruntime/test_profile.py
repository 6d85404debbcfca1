from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from calibration.graph.layers import LayerKind, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from engine_builder.backends.onnxruntime.cpu import session_options
from engine_builder.backends.onnxruntime.profile import profiled_kernels
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.model_text import cnn, model_from_text, one_batch


def kernels_of(model: onnx.ModelProto, folder: Path) -> dict[str, float]:
    """Return milliseconds by each name that a kernel goes by."""
    path = folder / "engine.onnx"
    onnx.save_model(model, path)
    feeds = {name: np.repeat(array, 4, axis=0) for name, array in one_batch(cnn()).items()}
    kernels = profiled_kernels(path, feeds, options=session_options(1), scratch=folder)
    return {name: kernel.milliseconds for kernel in kernels for name in kernel.names}


def test_every_weighted_layer_of_a_float_engine_has_a_time(tmp_path: Path) -> None:
    """The residual add has none: the runtime fuses it into the convolution before it."""
    prepared = prepare(cnn()).model
    found = kernels_of(prepared, tmp_path)
    for layer in (layer for layer in find_layers(prepared) if layer.kind is LayerKind.WEIGHTED):
        assert {*layer.nodes, layer.output} & set(found), f"{layer.name} is not among {sorted(found)}"
    assert all(value > 0.0 for value in found.values())


def test_every_layer_of_an_integer_engine_has_a_time(tmp_path: Path) -> None:
    """Under the name of its node or of its output, however the runtime fused it."""
    prepared = prepare(cnn()).model
    layers = find_layers(prepared)
    names = {name for layer in layers for name in (*layer.inputs, layer.output)}
    explicit = rewrite(
        prepared, layers, {layer.name: Precision.INT8 for layer in layers}, dict.fromkeys(names, (-4.0, 4.0)), ONNXRUNTIME_CPU_SCHEME
    )
    found = kernels_of(explicit, tmp_path)
    for layer in layers:
        assert {*layer.nodes, layer.output} & set(found), f"{layer.name} is not among {sorted(found)}"


def test_a_name_that_ends_like_one_of_the_runtimes_own_is_kept(tmp_path: Path) -> None:
    model = prepare(cnn()).model
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.name = "classifier_fused"
    assert "classifier_fused" in kernels_of(model, tmp_path)


def test_the_profile_is_removed(tmp_path: Path) -> None:
    kernels_of(cnn(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.onnx"]


def test_a_kernel_says_what_it_computes_what_it_reads_and_how_much_it_writes(tmp_path: Path) -> None:
    prepared = prepare(cnn()).model
    layers = find_layers(prepared)
    names = {name for layer in layers for name in (*layer.inputs, layer.output)}
    ranges = dict.fromkeys(names, (-4.0, 4.0))
    explicit = rewrite(prepared, layers, {layers[-1].name: Precision.INT8}, ranges, ONNXRUNTIME_CPU_SCHEME)
    path = tmp_path / "engine.onnx"
    onnx.save_model(explicit, path)
    feeds = {name: np.repeat(array, 4, axis=0) for name, array in one_batch(cnn()).items()}
    kernels = profiled_kernels(path, feeds, options=session_options(1), scratch=tmp_path)
    quantized, back = (next(one for one in kernels if one.operator == operator) for operator in ("QuantizeLinear", "DequantizeLinear"))
    samples = len(next(iter(feeds.values())))
    assert (quantized.reads, quantized.elements % samples) == ("float", 0)
    assert back.reads == "uint8"
    assert kernels.index(quantized) < kernels.index(back)


def test_a_layer_that_stays_float_beside_a_quantized_one_has_its_own_name(tmp_path: Path) -> None:
    """Its activation gives way to the rounding of the next layer, and what it writes gets another name."""
    prepared = prepare(cnn()).model
    layers = find_layers(prepared)
    names = {name for layer in layers for name in (*layer.inputs, layer.output)}
    last = [layer.name for layer in layers][1:]
    explicit = rewrite(prepared, layers, dict.fromkeys(last, Precision.INT8), dict.fromkeys(names, (-4.0, 4.0)), ONNXRUNTIME_CPU_SCHEME)
    raw = {output for node in prepared.graph.node if node.name in layers[0].nodes for output in node.output}
    assert {*layers[0].nodes, *raw} & set(kernels_of(explicit, tmp_path))


def test_the_kernels_of_dynamic_layers_are_theirs(tmp_path: Path) -> None:
    """Of one product whose input no other reads, of two that share the rounding of theirs, and of a Gemm."""
    text = """g (float[N,16] x) => (float[N,8] y, float[N,8] z) {
        a = MatMul(x, w1)
        b = MatMul(x, w2)
        y = Gemm(a, w3, b3)
        c = Relu(b)
        d = MatMul(c, w4)
        z = Add(d, b4)
    }"""
    shapes = {"w1": (16, 8), "w2": (16, 8), "w3": (8, 8), "b3": (8,), "w4": (8, 8), "b4": (8,)}
    model = prepare(model_from_text(text, shapes)).model
    layers = [layer for layer in find_layers(model) if layer.kind is LayerKind.WEIGHTED]
    explicit = rewrite(model, layers, {layer.name: Precision.INT8_DYNAMIC for layer in layers}, {}, ONNXRUNTIME_CPU_SCHEME)
    onnx.save_model(explicit, tmp_path / "engine.onnx")
    kernels = profiled_kernels(tmp_path / "engine.onnx", one_batch(model), options=session_options(1), scratch=tmp_path)
    for layer in layers:
        assert sum(layer.name in kernel.names for kernel in kernels) == 1
