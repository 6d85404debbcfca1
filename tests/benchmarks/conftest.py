"""A network of two layers that the tests of the orders benchmark share."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from benchmarks.order_measurements import Draw, Network
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare


@pytest.fixture
def network() -> Network:
    """A product, a Relu and a product, of four inputs and three classes."""
    rng = np.random.default_rng(0)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 4] x) => (float[n, 3] y) { a = MatMul(x, w)  b = Relu(a)  y = Gemm(b, v, c) }
    """
    model = onnx.parser.parse_model(text)
    arrays = {"w": rng.standard_normal((4, 6)), "v": rng.standard_normal((6, 3)), "c": rng.standard_normal(3)}
    model.graph.initializer.extend(numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items())
    prepared = prepare(model).model
    return Network("small", prepared, find_layers(prepared), "x")


@pytest.fixture
def roomy(network: Network) -> Draw:
    """Ranges that hold every activation of the network, and no levels."""
    return Draw("0", {name: (-20.0, 20.0) for layer in network.layers for name in (*layer.inputs, layer.output)}, {})
