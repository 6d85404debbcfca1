"""Outputs that are inputs have names of their own in an engine, and keep what they hold."""

from __future__ import annotations

import numpy as np

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from engine_builder.qdq.checks.simulation import simulated
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.model_text import model_from_text, run

ECHOES = """g (float[N,4] x, int64[N] ids) => (float[N,4] y, float[N,4] x, int64[N] ids, float[N,4] copy) {
    y = MatMul(x, w) copy = Identity(x) }"""


def test_inputs_that_are_given_out_are_given_out_unrounded_under_names_of_their_own() -> None:
    model = model_from_text(ECHOES, {"w": (4, 4)})
    prepared = prepare(model).model
    explicit = rewrite_tensorrt(prepared, find_layers(prepared), {}, {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, baseline=Precision.FP16)
    assert [value.name for value in explicit.graph.input] == ["x", "ids"]
    assert [value.name for value in explicit.graph.output] == ["y", "x_output", "ids_output", "copy"]
    x = np.array([[1e6, 1.0001, 3.0, 4.0]], dtype=np.float32)
    _, echo, ids, copy = run(simulated(explicit), {"x": x, "ids": np.array([123456789])})
    np.testing.assert_array_equal(echo, x)
    np.testing.assert_array_equal(copy, x)
    np.testing.assert_array_equal(ids, [123456789])


def test_a_uint8_picture_that_is_given_out_keeps_its_type() -> None:
    model = model_from_text(
        "g (uint8[N,4] x) => (float[N,4] y, uint8[N,4] x) { f = Cast<to=1>(x) y = MatMul(f, w) }",
        {"w": (4, 4)},
    )
    prepared = prepare(model).model
    ranges = {value.name: (0.0, 255.0) for value in (*prepared.graph.value_info, *prepared.graph.output)}
    explicit = rewrite_tensorrt(prepared, find_layers(prepared), {}, ranges, baseline=Precision.FP16)
    x = np.array([[0, 1, 128, 255]], dtype=np.uint8)
    echo = run(simulated(explicit), {"x": x})[1]
    assert echo.dtype == np.uint8
    np.testing.assert_array_equal(echo, x)
