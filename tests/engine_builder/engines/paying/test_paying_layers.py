"""Convolutions that are predicted to be slower in a low precision are not offered it, before anything is built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import onnx

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Capabilities, LayerSizes
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.engines.paying.paying_layers import MOST_EXCESS, paying_layers, sizes_of
from tests.model_text import cnn

MODEL: onnx.ModelProto = prepare(cnn()).model
LAYERS = find_layers(MODEL)
NAMES = [layer.name for layer in LAYERS if layer.op_type == "Conv"]
SHAPES = {value.name: tuple(dim.dim_value or 4 for dim in value.type.tensor_type.shape.dim) for value in MODEL.graph.input}
BOTH = (Precision.INT8, Precision.FP8)
PLAIN = dataclasses.replace(OrtCpuBackend().capabilities, baseline=Precision.FP16)


def target(ratio: float) -> Capabilities:
    """Return one where INT8 takes so many times as long as FP16 in the largest convolution, and nothing is known of FP8."""

    def expected(layers: Sequence[LayerSizes], precision: Precision) -> tuple[float, ...] | None:
        if precision is Precision.FP8:
            return None
        largest = max(math.prod(layer.weight) for layer in layers)
        return tuple(ratio if precision is Precision.INT8 and math.prod(layer.weight) == largest else 1.0 for layer in layers)

    return dataclasses.replace(PLAIN, expected_ms=expected)


def test_a_layer_loses_the_precision_in_which_it_is_slower_and_keeps_the_others() -> None:
    eligible = dict.fromkeys(NAMES, BOTH)
    found = paying_layers(MODEL, LAYERS, eligible, SHAPES, target(1.0 + 2 * MOST_EXCESS))
    (slow,) = found.left_out
    assert found.left_out == {slow: (Precision.INT8,)}
    assert found.eligible == {**eligible, slow: (Precision.FP8,)}


def test_a_layer_without_another_precision_is_no_longer_eligible() -> None:
    eligible = dict.fromkeys(NAMES, (Precision.INT8,))
    found = paying_layers(MODEL, LAYERS, eligible, SHAPES, target(2.0))
    assert found.eligible.keys() == set(NAMES) - found.left_out.keys()
    assert len(found.left_out) == 1


def test_what_a_prediction_can_err_by_is_no_reason() -> None:
    eligible = dict.fromkeys(NAMES, BOTH)
    assert paying_layers(MODEL, LAYERS, eligible, SHAPES, target(1.0 + MOST_EXCESS / 2)).left_out == {}


def test_where_the_target_predicts_nothing_all_stay() -> None:
    eligible = dict.fromkeys(NAMES, BOTH)
    found = paying_layers(MODEL, LAYERS, eligible, SHAPES, PLAIN)
    assert (found.eligible, found.left_out) == (eligible, {})


def test_sizes_are_those_of_the_timed_call() -> None:
    sizes = sizes_of(MODEL, LAYERS, SHAPES)
    assert list(sizes) == NAMES
    assert {one.read[0] for one in sizes.values()} == {next(iter(SHAPES.values()))[0]}
    assert all(one.written[1] == one.weight[0] for one in sizes.values())
    assert sizes_of(MODEL, LAYERS, {}) == {}  # nothing follows from nothing
