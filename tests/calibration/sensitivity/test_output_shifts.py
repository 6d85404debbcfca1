"""The bias correction that a probe takes off is the one that an engine with that layer alone in low precision has."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.algorithms.bias_correction import bias_locations, corrections, mean_outputs
from calibration.algorithms.smooth_quant import channel_spans, fit_smooth_quants, takes_smooth_quant
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from calibration.sensitivity.means.output_shifts import measure_shifts
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.simulated_layers import Shifts
from engine_builder.qdq.emit.biases import with_corrected_biases
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.model_text import model_from_text, run, samples_for
from tests.probed_models import SYMMETRIC_SCHEME, Probed, probe_of, probed

SCHEMES = pytest.mark.parametrize("scheme", [ONNXRUNTIME_CPU_SCHEME, SYMMETRIC_SCHEME], ids=["onnxruntime", "symmetric"])


def network() -> onnx.ModelProto:
    """Every kind of bias location, two with an activation behind them, and layers without any."""
    return model_from_text(
        """g (float[N,3,8,8] x) => (float[N,4] y)
        <float zero = {0.0}, float six = {6.0}> {
            c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r1 = Clip(c1, zero, six)
            c2 = Conv(r1, w2)
            up = ConvTranspose<strides=[2,2], group=2>(c2, w3, b3)
            r2 = Relu(up)
            pooled = GlobalAveragePool(r2)
            flat = Flatten(pooled)
            m = MatMul(flat, w4)
            a = Add(m, b4)
            r3 = Relu(a)
            y = Gemm<transB=1>(r3, w5, b5)
        }""",
        {
            **{"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 1, 1), "w3": (4, 3, 2, 2), "b3": (6,)},
            **{"w4": (6, 5), "b4": (5,), "w5": (4, 5), "b5": (4,)},
        },
    )


def case(scheme: Scheme = ONNXRUNTIME_CPU_SCHEME) -> Probed:
    """Ranges clip a quarter of the values, so that the means shift."""
    feeds = {"x": np.abs(samples_for(network(), 24)["x"]).astype(np.float32)}
    found = probed(network(), feeds, scheme)
    ranges = {name: (low / 2, high / 2) for name, (low, high) in found.ranges.items()}
    smooth = takes_smooth_quant(found.model, [layer for layer in found.layers if layer.op_type == "Gemm"])
    smooth_quants = fit_smooth_quants(found.model, smooth, channel_spans(found.model, smooth, [feeds]))
    return Probed(found.model, found.layers, feeds, ranges, scheme, smooth_quants)


def shifts_of(found: Probed, batch: int = 24, precision: Precision = Precision.INT8) -> Shifts:
    locations = bias_locations(found.model, found.layers)
    batches = [{"x": found.feeds["x"][i : i + batch]} for i in range(0, 24, batch)]
    wanted = [LayerPrecision(layer.name, precision) for layer in found.layers]
    return measure_shifts(
        found.model,
        found.layers,
        wanted,
        found.ranges,
        found.scheme,
        locations,
        mean_outputs(found.model, locations, batches),
        batches,
        smooth_quants=found.smooth_quants,
    )


@SCHEMES
def test_the_shift_of_a_layer_is_the_correction_of_the_engine_with_that_layer_low(scheme: Scheme) -> None:
    found = case(scheme)
    locations = bias_locations(found.model, found.layers)
    means, shifts = mean_outputs(found.model, locations, [found.feeds]), shifts_of(found)
    assert {layer for layer, _ in shifts} == {location.layer for location in locations}
    for location in locations:
        explicit = rewrite(found.model, found.layers, {location.layer: Precision.INT8}, found.ranges, found.scheme, found.smooth_quants)
        expected = corrections(explicit, (location,), means, [found.feeds])[location.layer]
        size = float(np.abs(expected).max())
        assert size > 0.0
        # int32 biases and sums in another order turn a few roundings
        np.testing.assert_allclose(shifts[location.layer, Precision.INT8], expected, atol=0.02 * size)


@SCHEMES
def test_a_probe_with_its_shift_gives_the_outputs_of_the_corrected_engine(scheme: Scheme) -> None:
    found = case(scheme)
    locations = {location.layer: location for location in bias_locations(found.model, found.layers)}
    shifts, plain = shifts_of(found), found.outputs()
    reference = ReferenceModel(found.model, found.layers, found.ranges, found.scheme, found.smooth_quants, shifts=shifts)
    for name, location in locations.items():
        layer = found.layer(name)
        (got,) = (part.astype(np.float64) for part in _probe_outputs(reference, found, layer.name))
        moved = with_corrected_biases(found.model, (location,), {name: shifts[name, Precision.INT8]})
        assignment = {name: Precision.INT8}
        (wanted,) = run(rewrite(moved, found.layers, assignment, found.ranges, found.scheme, found.smooth_quants), found.feeds)
        (uncorrected,) = found.explicit_outputs(layer)
        change = float(np.sum((wanted - uncorrected) ** 2))
        assert change > 0.0
        # a value on the edge of two levels may fall either way, an int32 bias rounds
        assert float(np.sum((got - wanted) ** 2)) <= 0.1 * min(change, float(np.sum((wanted - plain[0]) ** 2)))


def test_shifts_do_not_depend_on_how_samples_are_batched() -> None:
    found = case()
    whole, parts = shifts_of(found), shifts_of(found, 8)
    assert whole.keys() == parts.keys()
    for key, shift in whole.items():
        np.testing.assert_allclose(parts[key], shift, atol=1e-3 * float(np.abs(shift).max()))  # sums in another order


def test_a_float_type_rounds_its_bias_with_the_shift() -> None:
    found = case()
    layer = found.layer("Conv_c1")
    shift = np.full(4, 0.3, dtype=np.float32)
    outputs = [
        probe_of(ReferenceModel(found.model, found.layers, found.ranges, found.scheme, shifts=shifts), found.feeds, layer).quantized_output(
            Precision.FP16
        )
        for shifts in ({}, {(layer.name, Precision.FP16): shift})
    ]
    inner = (outputs[0] > 0.0) & (outputs[0] < 5.0)  # the Clip
    np.testing.assert_allclose((outputs[1] - outputs[0])[inner], 0.3, atol=0.01)  # of 16-bit numbers below 6


def _probe_outputs(reference: ReferenceModel, found: Probed, name: str) -> tuple[np.ndarray, ...]:
    probe = probe_of(reference, found.feeds, found.layer(name))
    return probe.outputs_from(probe.quantized_output(Precision.INT8))


def test_an_activation_that_comes_late_in_the_graph_is_no_hindrance() -> None:
    """The activation of the first layer stands behind a node that a later layer reads."""
    model = model_from_text(
        """g (float[N,4] x) => (float[N,3] y) {
            a = Gemm(x, wa, ba)
            n = Neg(x)
            r = Relu(a)
            b = Gemm(n, wb, bb)
            c = Gemm(r, wc, bc)
            y = Sub(b, c)
        }""",
        {"wa": (4, 5), "ba": (5,), "wb": (4, 3), "bb": (3,), "wc": (5, 3), "bc": (3,)},
    )
    found = probed(model, samples_for(model, 24))
    assert len(shifts_of(found)) == 3
