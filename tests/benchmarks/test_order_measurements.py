from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.order_measurements import SCHEME, Draw, Kind, Network, measured_draw, measured_orders, with_rounded_weights
from calibration.number_formats.grids import fake_quantize_weight
from calibration.number_formats.precision import Precision
from calibration.number_formats.weight_scales import weight_step


def weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: np.asarray(numpy_helper.to_array(tensor), dtype=np.float32) for tensor in model.graph.initializer}


def test_only_the_named_layers_weights_are_rounded(network: Network) -> None:
    first, second = network.layers
    rounded, exact = weights(with_rounded_weights(network, {first.name: Precision.INT4})), weights(network.model)
    assert first.weight is not None
    assert second.weight is not None
    np.testing.assert_array_equal(rounded[first.weight], fake_quantize_weight(exact[first.weight], first.weight_axis, bits=4))
    np.testing.assert_array_equal(rounded[second.weight], exact[second.weight])


def test_levels_take_the_place_of_the_nearest(network: Network) -> None:
    first = network.layers[0]
    assert first.weight is not None
    exact = weights(network.model)[first.weight]
    levels = {(first.name, Precision.INT4): np.full(exact.shape, 3, dtype=np.int8)}
    rounded = weights(with_rounded_weights(network, {first.name: Precision.INT4}, levels))[first.weight]
    expected = np.broadcast_to(3.0 * weight_step(exact, first, Precision.INT4, SCHEME), exact.shape)
    np.testing.assert_allclose(rounded, expected, rtol=1e-6)  # the rounding of float32


@pytest.mark.parametrize("kind", list(Kind))
def test_only_gptq_has_levels_of_its_own(network: Network, kind: Kind, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    draw = measured_draw(network, kind, "0", x, tmp_path)
    assert draw.ranges["x"] == pytest.approx((float(x.min()), float(x.max())))
    assert bool(draw.levels) is (kind is Kind.INT4_GPTQ)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_every_order_holds_every_layer_precision_once(network: Network, roomy: Draw, precision: Precision) -> None:
    x = np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32)
    measured = measured_orders(network, precision, roomy, x)
    orders = measured.orders
    assert all(sorted(order.layer_precisions) == sorted(network.layer_precisions(precision)) for order in orders.values())
    assert orders["hessian+dependency (screen)"].forwards == orders["hessian"].forwards + orders["loss"].forwards
    assert measured.losses.layer_precisions == network.layer_precisions(precision)
    assert (measured.losses.loss > 0.0).all()
