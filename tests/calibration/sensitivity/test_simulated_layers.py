from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calibration.execution.partition import Graph
from calibration.execution.tensorwise_run import TensorwiseRun
from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.sensitivity.simulated_layers import rounded_weight, weight_of
from tests.traced_memory import peak_bytes

SIDE = 1024
WEIGHT_BYTES = 4 * SIDE * SIDE


@pytest.fixture
def model() -> onnx.ModelProto:
    weights = [np.random.default_rng(seed).standard_normal((SIDE, SIDE), dtype=np.float32) for seed in range(2)]
    tensors = [numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(weights)]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"), helper.make_node("MatMul", ["h", "w1"], ["y"], name="second")]
    x, h, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", SIDE)) for name in "xhy")
    graph = helper.make_graph(nodes, "two products", [x], [y], tensors, value_info=[h])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_weight_is_rounded_with_one_copy_of_it(model: onnx.ModelProto) -> None:
    graph = Graph(model, find_layers(model))
    layer = graph.units[0].layer

    def rounded() -> None:
        rounded_weight(graph, layer, Precision.INT8, None, ONNXRUNTIME_CPU_SCHEME)

    assert peak_bytes(rounded) < 2.2 * WEIGHT_BYTES  # the result, and what looking for the largest weight takes
    assert peak_bytes(lambda: weight_of(graph, layer)) < 0.01 * WEIGHT_BYTES


def test_a_rounded_weight_is_on_the_grid_and_near_the_weight(model: onnx.ModelProto) -> None:
    graph = Graph(model, find_layers(model))
    layer = graph.units[0].layer
    weight, found = weight_of(graph, layer), rounded_weight(graph, layer, Precision.INT8, None, ONNXRUNTIME_CPU_SCHEME)
    step = np.abs(weight).max(axis=0) / 127
    assert np.abs(found - weight).max() <= 0.5001 * step.max()  # half a step, and the rounding of float32
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)  # float32 quotients up to 127


def test_two_graphs_of_a_model_share_what_they_read(model: onnx.ModelProto) -> None:
    graph = Graph(model, find_layers(model))
    assert set(graph.matrices) == {"w0", "w1"}
    assert peak_bytes(lambda: TensorwiseRun(model, {"h": "h"}, matrices=graph.matrices)) < 0.1 * WEIGHT_BYTES
