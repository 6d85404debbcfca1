from __future__ import annotations

import numpy as np

from benchmarks.order_judging import HeldOut
from benchmarks.order_measurements import Draw, Network
from calibration.number_formats.precision import Precision


def held_out(network: Network) -> HeldOut:
    return HeldOut(network, np.random.default_rng(2).standard_normal((32, 4)).astype(np.float32))


def test_orders_of_the_same_layer_precisions_end_in_the_same_network(network: Network, roomy: Draw) -> None:
    judge = held_out(network)
    first, second = network.layer_precisions(Precision.INT4)
    one, other = judge.of_prefixes([first, second], roomy), judge.of_prefixes([second, first], roomy)
    assert one[1] == other[1]
    assert one[1].loss > 0.0 < one[1].error
    assert judge.networks_run == 3


def test_networks_that_hold_nothing_of_a_draw_are_run_once_for_all_draws(network: Network, roomy: Draw) -> None:
    judge = held_out(network)
    other = Draw("1", roomy.ranges, {})
    for precision, runs in ((Precision.INT4, 1), (Precision.INT8, 3)):
        quantized = network.layer_precisions(precision)[:1]
        judge.of(quantized, roomy)
        judge.of(quantized, other)
        assert judge.networks_run == runs


def test_weights_of_a_draw_are_run_for_that_draw(network: Network, roomy: Draw) -> None:
    judge = held_out(network)
    layer = network.layers[0]
    quantized = network.layer_precisions(Precision.INT4)[:1]
    ones = Draw("1", roomy.ranges, {(layer.name, Precision.INT4): np.ones((4, 6), dtype=np.int8)})
    assert judge.of(quantized, ones).loss > judge.of(quantized, roomy).loss


def test_the_float_network_agrees_with_itself(network: Network, roomy: Draw) -> None:
    found = held_out(network).of((), roomy)
    assert (found.loss, found.agreement) == (0.0, 1.0)
