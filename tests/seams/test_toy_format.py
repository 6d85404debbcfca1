"""A number format in one file and one row: the simulation, the Hessian, the search and the report's colours take it as they take others."""

from __future__ import annotations

import re
from typing import cast

import numpy as np
import pytest

from calibration.accuracy.metrics import OutputKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from calibration.sensitivity.hessian_trace import measure_traces
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.ranking import sensitivity_table
from engine_builder.reporting.figures.drawing import colour_of
from engine_builder.search.time_model import TensorEdge, TimeModel, converted
from tests.engine_builder.search.categorical_world import CategoricalWorld
from tests.model_text import cnn, samples_for
from tests.probed_models import Probed, assert_close, probe_of, probed
from tests.seams.toy_format import ToyFormat

# The type of a layer's precision is the table that users choose from; only that type is stretched here, no value of it.
E5M2, POT4 = cast("Precision", ToyFormat.E5M2), cast("Precision", ToyFormat.POT4)
TOYS = (E5M2, POT4)
KINDS = (OutputKind.LOGITS,)


@pytest.fixture(scope="module")
def case() -> Probed:
    return probed(cnn(), samples_for(cnn(), 32), TENSORRT_SCHEME)


@pytest.fixture(scope="module")
def layer_precisions(case: Probed) -> tuple[LayerPrecision, ...]:
    layers = [layer for layer in case.layers if layer.weight is not None]
    return tuple(LayerPrecision(layer.name, precision) for layer in layers for precision in (Precision.INT8, Precision.FP8, *TOYS))


@pytest.fixture(scope="module")
def loss(case: Probed, layer_precisions: tuple[LayerPrecision, ...]) -> dict[LayerPrecision, float]:
    found = measure_layer_losses(case.reference(), KINDS, layer_precisions, [case.feeds]).loss.mean(axis=0)
    return dict(zip(layer_precisions, found.tolist(), strict=True))


def test_the_simulated_layer_computes_on_the_formats_own_grid(case: Probed) -> None:
    layer = case.layer("logits")
    probe = probe_of(case.reference(), case.feeds, layer)
    weight, inputs = case.reference().weight(layer), np.asarray(probe.inside[layer.inputs[0]], dtype=np.float32)
    bias = probe.output() - inputs @ weight.T
    rounded = E5M2.grid.round_activation(inputs, *case.ranges[layer.inputs[0]], symmetric=True)
    assert_close(probe.quantized_output(E5M2), rounded @ E5M2.grid.round_weight(weight).T + bias)
    assert not np.array_equal(rounded, inputs)


def test_a_bit_less_of_the_mantissa_loses_more(loss: dict[LayerPrecision, float]) -> None:
    layers = {layer_precision.layer for layer_precision in loss}
    assert all(loss[LayerPrecision(name, E5M2)] > loss[LayerPrecision(name, Precision.FP8)] > 0.0 for name in layers)


def test_weights_alone_are_rounded_where_the_row_says_so(case: Probed) -> None:
    layer = case.layer("logits")
    probe = probe_of(case.reference(), case.feeds, layer)
    moved = POT4.grid.round_weight(case.reference().weight(layer))
    assert_close(probe.quantized_output(POT4), probe.output(weight=moved))
    assert len(np.unique(np.abs(moved))) <= 8


def test_the_hessian_estimates_each_tensor_that_the_format_rounds(case: Probed) -> None:
    traces = measure_traces(case.reference(), KINDS, case.scheme, case.ranges, [case.feeds], seed=0, precisions=TOYS)
    sites = {(trace.precision, trace.site) for trace in traces if trace.layer == case.layer("logits").name}
    assert sites == {(E5M2, "weight"), (E5M2, "input0"), (POT4, "weight")}
    assert all(trace.rounding > 0.0 for trace in traces if trace.site == "weight")


def test_the_layers_are_ranked_in_it(case: Probed, layer_precisions: tuple[LayerPrecision, ...]) -> None:
    layer_losses = measure_layer_losses(case.reference(), KINDS, layer_precisions, [case.feeds])
    traces = measure_traces(case.reference(), KINDS, case.scheme, case.ranges, [case.feeds], seed=0, precisions=TOYS)
    table = sensitivity_table(layer_losses, traces, hessian_samples=32, plain_forwards=1.0)
    assert {row.layer_precision for row in table.rows} == set(layer_precisions)
    assert all(row.hessian is not None for row in table.rows if row.precision in TOYS)


def test_a_tensor_is_converted_between_it_and_any_other_form() -> None:
    edges = (TensorEdge("a", ("b",), False, 100),)
    assert converted(edges, {"a": E5M2, "b": E5M2}) == 0
    assert converted(edges, {"a": E5M2, "b": Precision.FP8}) == 100
    assert converted(edges, {"a": POT4, "b": POT4}) == 0  # of weights alone: both read floats
    assert converted(edges, {"a": POT4, "b": E5M2}) == 100


def test_the_search_finds_the_fastest_engine_among_its_choices(loss: dict[LayerPrecision, float]) -> None:
    gains = {Precision.INT8: 0.10, Precision.FP8: 0.10, E5M2: 0.16, POT4: 0.13}
    layer_precisions = tuple(loss)
    times = TimeModel(1.0, {one: gains[one.precision] for one in layer_precisions}, (), 0.0, {})
    layers = tuple(dict.fromkeys(one.layer for one in layer_precisions))
    affordable = loss[LayerPrecision(layers[0], E5M2)] + sum(loss[LayerPrecision(name, Precision.INT8)] for name in layers[1:])
    world = CategoricalWorld(layer_precisions, np.array(list(loss.values())), times, affordable)
    trials = world.run()
    best = min((trial for trial in trials if trial.met), key=lambda trial: times.ratio(trial.precisions))
    assert set(TOYS) & set(best.precisions.values())
    assert times.ratio(best.precisions) <= world.best_ratio() + 1e-9


def test_the_report_gives_it_its_colour_and_no_other_formats() -> None:
    colours = [colour_of(one.value, ToyFormat) for one in ToyFormat] + [colour_of(one.value) for one in Precision]
    assert colours[: len(TOYS)] == [one.colour for one in TOYS]
    assert len(set(colours)) == len(colours)
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in colours)
    assert colour_of("e5m2") not in colours  # without its row
