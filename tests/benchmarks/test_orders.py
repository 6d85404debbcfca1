from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.order_measurements import HeldOutLoss, Network, measured_orders, with_rounded_weights
from benchmarks.orders import pictures, random_order
from calibration.layers import find_layers
from calibration.precision import Precision, fake_quantize_weight
from calibration.prepare import prepare

ROOMY = (-20.0, 20.0)


@pytest.fixture
def network() -> Network:
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


def weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: np.asarray(numpy_helper.to_array(tensor), dtype=np.float32) for tensor in model.graph.initializer}


def test_only_the_named_layers_weights_are_rounded(network: Network) -> None:
    first, second = network.layers
    rounded, exact = weights(with_rounded_weights(network, {first.name: Precision.INT4})), weights(network.model)
    assert first.weight is not None
    assert second.weight is not None
    np.testing.assert_array_equal(rounded[first.weight], fake_quantize_weight(exact[first.weight], first.weight_axis, bits=4))
    np.testing.assert_array_equal(rounded[second.weight], exact[second.weight])


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_every_order_holds_every_decision_once(network: Network, precision: Precision) -> None:
    x = np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32)
    ranges = {name: ROOMY for layer in network.layers for name in (*layer.inputs, layer.output)}
    orders = measured_orders(network, precision, ranges, x)
    assert all(sorted(order.decisions) == sorted(network.decisions(precision)) for order in orders.values())
    assert orders["hessian+dependency (screen)"].forwards == orders["hessian"].forwards + orders["loss"].forwards


def test_orders_of_the_same_decisions_end_in_the_same_loss(network: Network) -> None:
    x = np.random.default_rng(2).standard_normal((8, 4)).astype(np.float32)
    judge = HeldOutLoss(network, x)
    first, second = network.decisions(Precision.INT4)
    one, other = judge.of_prefixes([(first, second), (second, first)], {}, "draw")
    assert one[1] == other[1] > 0
    assert judge.networks_run == 3


def test_draws_are_disjoint_and_of_the_size_asked_for() -> None:
    draws, held_out = pictures(2, 64, 10)
    assert [len(draw) for draw in (*draws, held_out)] == [64, 64, 10]
    assert not {picture.tobytes() for picture in draws[0]} & {picture.tobytes() for picture in draws[1]}


def test_random_order_is_a_seeded_shuffle(network: Network) -> None:
    decisions = network.decisions(Precision.INT8)
    assert random_order(decisions, 3) == random_order(decisions, 3)
    assert sorted(random_order(decisions, 3)) == sorted(decisions)
