"""The table adds up what the probes found."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from calibration.codec import json_from_value, value_from_json
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.layer_losses import LayerLosses
from calibration.sensitivity.ranking import forwards_of_probes, sensitivity_table
from calibration.sensitivity.records import HessianTrace, SensitivityTable

LAYER_PRECISIONS = (LayerPrecision("a", Precision.INT8), LayerPrecision("a", Precision.INT4), LayerPrecision("b", Precision.INT8))
LOSS = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]])
LAYER_LOSSES = LayerLosses(LAYER_PRECISIONS, LOSS, np.zeros((3, 3)), np.zeros((3, 3)))
TRACES = (
    HessianTrace("a", "weight", trace=4.0, error=3.0, size=2, probes=4, step=1e-3, settled=True, rounding=1.0),
    HessianTrace("a", "input0", trace=8.0, error=4.0, size=2, probes=4, step=1e-3, settled=True, rounding=1.0),
)


def table() -> SensitivityTable:
    return sensitivity_table(LAYER_LOSSES, TRACES, hessian_samples=32, plain_forwards=6.0)


def test_the_loss_is_the_mean_over_samples_with_its_standard_error() -> None:
    rows = table().rows
    assert [row.loss for row in rows] == [2.0, 2.0, 2.0]
    assert [row.loss_error for row in rows] == [1.0, 0.0, 2.0]
    assert [row.layer_precision for row in rows] == list(LAYER_PRECISIONS)


def test_the_hessian_estimate_sums_over_the_tensors_of_an_int8_layer() -> None:
    rows = table().rows
    assert rows[0].hessian == 3.0  # 1/2 * 4/2 + 1/2 * 8/2
    assert rows[0].hessian_error == 1.25  # hypot(1/2 * 3/2, 1/2 * 4/2)


def test_each_precision_has_the_hessian_estimate_of_its_own_rounding() -> None:
    four = dataclasses.replace(TRACES[0], rounding=5.0, precision=Precision.INT4)
    rows = sensitivity_table(LAYER_LOSSES, (*TRACES, four), hessian_samples=32, plain_forwards=6.0).rows
    assert [row.hessian for row in rows] == [3.0, 5.0, None]


def test_what_was_not_probed_has_no_hessian_estimate() -> None:
    rows = table().rows
    assert rows[1].hessian is None  # the traces are of 8-bit roundings
    assert rows[2].hessian is None
    assert rows[2].hessian_error is None


def test_a_single_sample_has_an_unknown_error() -> None:
    one = LayerLosses(LAYER_PRECISIONS, LOSS[:1], np.zeros((3, 3)), np.zeros((3, 3)))
    assert all(math.isinf(row.loss_error) for row in sensitivity_table(one, (), hessian_samples=0, plain_forwards=3.0).rows)


def test_a_table_survives_json() -> None:
    assert value_from_json(SensitivityTable, json_from_value(table())) == table()


def layer(name: str, macs: int) -> Layer:
    return Layer(name, "MatMul", LayerKind.WEIGHTED, (f"{name}_in",), f"{name}_w", 1, None, f"{name}_out", (name,), macs, 1)


def test_a_probe_takes_the_work_of_its_layer_and_those_after_it_and_all_share_one_float_pass() -> None:
    layers = [layer("a", 60), layer("b", 30), layer("c", 10)]
    probes = [
        LayerPrecision("a", Precision.INT8),
        LayerPrecision("b", Precision.INT8),
        LayerPrecision("c", Precision.INT8),
        LayerPrecision("c", Precision.INT4),
    ]
    np.testing.assert_allclose(forwards_of_probes(probes, layers), 1.0 + 1.0 + 0.4 + 0.1 + 0.1)


def test_equal_layers_take_about_half_a_forward_pass_each() -> None:
    layers = [layer(str(index), 5) for index in range(40)]
    probes = [LayerPrecision(item.name, Precision.INT8) for item in layers]
    assert 0.5 < forwards_of_probes(probes, layers) / len(probes) < 0.56


def test_layers_without_any_known_work_count_as_whole_passes() -> None:
    np.testing.assert_allclose(forwards_of_probes([LayerPrecision("a", Precision.INT8)], [layer("a", 0)]), 2.0)
