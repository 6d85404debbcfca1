"""Traces and steps, on losses whose Hessian is known in closed form.

For y = x W and the loss ||d||^2 / ||y||^2 of one sample, with k outputs: the Hessian is 2 (x x') (x) I / ||y||^2 with respect to W,
2 W W' / ||y||^2 with respect to x and 2 I / ||y||^2 with respect to y.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.accuracy.metrics import OutputKind
from calibration.algorithms.bias_correction import bias_locations
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import LayerKind
from calibration.number_formats.block_grids import fake_quantize_in_blocks
from calibration.number_formats.grids import E4M3, block_scale, fake_quantize_activation, fake_quantize_dynamically, fake_quantize_weight
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision
from calibration.sensitivity.hessian_trace import AGREEMENT, measure_traces, settled_step, sites
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.records import HessianTrace
from tests.model_text import cnn, model_from_text, samples_for
from tests.probed_models import Probed, probe_of, probed

INPUTS, OUTPUTS = 6, 5
KINDS = (OutputKind.VALUES,)


def linear() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,5] y) { y = Gemm(x, w) }", {"w": (INPUTS, OUTPUTS)})


def closed_forms(case: Probed) -> dict[str, float]:
    """Return the mean trace over the samples, by site."""
    x = case.feeds["x"].astype(np.float64)
    w = onnx.numpy_helper.to_array(case.model.graph.initializer[0]).astype(np.float64)
    norm = np.sum((x @ w) ** 2, axis=1)
    return {
        "weight": float(np.mean(2 * OUTPUTS * np.sum(x**2, axis=1) / norm)),
        "input0": float(np.mean(2 * np.sum(w**2) / norm)),
        "output": float(np.mean(2 * OUTPUTS / norm)),
    }


def traces_of(case: Probed, batches: int, *, seed: int = 0, workers: int = 1) -> dict[str, HessianTrace]:
    """Return the traces of the only layer, every batch the same samples, so that only the probes differ."""
    reference = case.reference()
    found = measure_traces(reference, KINDS, case.scheme, case.ranges, [case.feeds] * batches, seed=seed, workers=workers)
    return {trace.site: trace for trace in found}


@pytest.fixture(scope="module")
def case() -> Probed:
    return probed(linear(), samples_for(linear(), 32))


def test_traces_of_a_linear_model_are_its_closed_forms(case: Probed) -> None:
    found = traces_of(case, 200)
    for site, expected in closed_forms(case).items():
        trace = found[site]
        assert trace.settled
        assert trace.probes == 200
        assert abs(trace.trace - expected) <= 4 * trace.error + 1e-3 * expected
        assert trace.error < 0.1 * expected


def test_the_trace_of_an_output_needs_one_probe(case: Probed) -> None:
    """There v'Hv is the trace for every v, since H is a multiple of the identity."""
    trace = traces_of(case, 1)["output"]
    assert trace.trace == pytest.approx(closed_forms(case)["output"], rel=2e-3)
    assert math.isinf(trace.error)


def test_the_error_shrinks_with_the_square_root_of_the_batches(case: Probed) -> None:
    few, many = traces_of(case, 16)["weight"].error, traces_of(case, 256)["weight"].error
    assert few / many == pytest.approx(4.0, rel=0.5)  # the spread of a spread over 16 probes is 18%


def test_the_stated_error_is_the_spread_over_seeds(case: Probed) -> None:
    found = [traces_of(case, 8, seed=seed)["weight"] for seed in range(40)]
    spread = np.std([trace.trace for trace in found], ddof=1)
    stated = np.sqrt(np.mean([trace.error**2 for trace in found]))
    assert stated == pytest.approx(spread, rel=0.5)


def test_a_seed_repeats_its_traces_whatever_the_workers(case: Probed) -> None:
    assert traces_of(case, 6, seed=3) == traces_of(case, 6, seed=3, workers=3)
    assert traces_of(case, 6, seed=3) != traces_of(case, 6, seed=4)


def test_a_weight_has_the_trace_that_is_left_when_the_means_are_kept() -> None:
    """The Hessian of a linear model with its means kept has (x - E[x]) in the place of x."""
    model = model_from_text("g (float[N,6] x) => (float[N,5] y) { y = Gemm(x, w, b) }", {"w": (INPUTS, OUTPUTS), "b": (OUTPUTS,)})
    found = probed(model, {"x": 1.5 + samples_for(model, 32)["x"]})
    reference = found.reference()
    means = MeanInputs(reference, bias_locations(found.model, found.layers), [found.feeds])
    traces = measure_traces(reference, KINDS, found.scheme, found.ranges, [found.feeds] * 200, seed=0, means=means)
    x, y = (np.asarray(values, dtype=np.float64) for values in (found.feeds["x"], found.outputs()[0]))
    norm = np.sum(y**2, axis=1)
    expected = float(np.mean(2 * OUTPUTS * np.sum((x - x.mean(axis=0)) ** 2, axis=1) / norm))
    plain = float(np.mean(2 * OUTPUTS * np.sum(x**2, axis=1) / norm))
    trace = next(trace for trace in traces if trace.site == "weight")
    assert abs(trace.trace - expected) <= 4 * trace.error + 1e-3 * expected
    assert trace.trace < 0.6 * plain


def test_sizes_and_roundings_are_those_of_the_tensors(case: Probed) -> None:
    found = traces_of(case, 2)
    assert {site: trace.size for site, trace in found.items()} == {"weight": INPUTS * OUTPUTS, "input0": INPUTS, "output": OUTPUTS}
    layer = case.layers[0]
    weight = onnx.numpy_helper.to_array(case.model.graph.initializer[0])
    rounded: dict[str, tuple[NDArray[np.float32], NDArray[np.float32], int]] = {
        "weight": (weight, fake_quantize_weight(weight, layer.weight_axis, bits=8), 1)
    }
    for site, values in (("input0", case.feeds["x"]), ("output", case.outputs()[0])):
        name = "x" if site == "input0" else "y"
        x = np.asarray(values, dtype=np.float32)
        rounded[site] = (x, fake_quantize_activation(x, *case.ranges[name], bits=8, symmetric=False), len(x))
    for site, (x, q, samples) in rounded.items():
        assert found[site].rounding == pytest.approx(float(np.sum((x.astype(np.float64) - q) ** 2)) / samples, rel=1e-3)


def test_sensitivity_is_half_the_mean_curvature_times_the_squared_rounding() -> None:
    trace = HessianTrace("layer", "weight", trace=12.0, error=3.0, size=6, probes=4, step=1e-3, settled=True, rounding=0.5)
    assert trace.sensitivity == 0.5
    assert trace.sensitivity_error == 0.125


def test_every_tensor_that_int8_rounds_is_a_site() -> None:
    case = probed(cnn(), samples_for(cnn(), 4))
    reference = case.reference()
    found = {layer.output: sites(reference, layer, ONNXRUNTIME_CPU_SCHEME, Precision.INT8) for layer in case.layers}
    assert found["r1"] == ("weight", "input0", "output")
    add = next(layer for layer in case.layers if layer.kind is LayerKind.RESIDUAL_ADD)
    assert found[add.output] == ("input0", "input1", "output")


def test_what_a_dynamic_layer_rounds_has_the_error_of_the_operator() -> None:
    case = probed(cnn(), samples_for(cnn(), 4))
    reference = case.reference()
    gemm = next(layer for layer in case.layers if layer.op_type == "Gemm")
    assert sites(reference, gemm, ONNXRUNTIME_CPU_SCHEME, Precision.INT8_DYNAMIC) == ("weight", "input0")  # no output
    dynamic = (Precision.INT8_DYNAMIC,)
    given = reference, [OutputKind.LOGITS], case.scheme, case.ranges, [case.feeds]
    found = measure_traces(*given, seed=0, precisions=dynamic, eligible={gemm.name: dynamic})
    (trace,) = [trace for trace in found if trace.site == "input0"]
    tensor = np.asarray(probe_of(reference, case.feeds, gemm).inside[gemm.inputs[0]], dtype=np.float32)
    expected = float(((fake_quantize_dynamically(tensor) - tensor) ** 2).sum()) / len(tensor)
    assert trace.rounding == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", [Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS])
def test_what_a_layer_in_blocks_rounds_has_the_error_of_the_formula(precision: Precision) -> None:
    case = probed(cnn(), samples_for(cnn(), 4))
    reference = case.reference()
    gemm = next(layer for layer in case.layers if layer.op_type == "Gemm")
    assert sites(reference, gemm, ONNXRUNTIME_CPU_SCHEME, precision) == ("weight", "input0")  # no output
    given = reference, [OutputKind.LOGITS], case.scheme, case.ranges, [case.feeds]
    found = measure_traces(*given, seed=0, precisions=(precision,), eligible={gemm.name: (precision,)})
    rounding = {trace.site: trace.rounding for trace in found}
    tensor = np.asarray(probe_of(reference, case.feeds, gemm).inside[gemm.inputs[0]], dtype=np.float32)
    expected = float(((fake_quantize_in_blocks(tensor, 128) - tensor) ** 2).sum()) / len(tensor)
    assert rounding["input0"] == pytest.approx(expected, rel=1e-5)
    weight = reference.weight(gemm)
    assert rounding["weight"] == pytest.approx(float(((reference.rounded_weight(gemm, precision) - weight) ** 2).sum()), rel=1e-5)
    assert rounding["weight"] > 0.0


def test_a_strongly_typed_sum_has_only_the_inputs_that_it_reads_rounded() -> None:
    case = probed(cnn(), samples_for(cnn(), 4), scheme=TENSORRT_SCHEME)
    reference = case.reference()
    add = next(layer for layer in case.layers if layer.kind is LayerKind.RESIDUAL_ADD)
    shared = {name for layer in case.layers if layer.kind is LayerKind.WEIGHTED for name in layer.inputs}
    expected = tuple(f"input{index}" for index, name in enumerate(add.inputs) if name in shared)
    assert 0 < len(expected) < len(add.inputs)
    for precision in (Precision.INT8, Precision.FP8):
        assert sites(reference, add, TENSORRT_SCHEME, precision) == expected


def test_four_bit_weights_need_no_trace_of_an_activation() -> None:
    case = probed(cnn(), samples_for(cnn(), 4), scheme=TENSORRT_SCHEME)
    found = measure_traces(
        case.reference(), [OutputKind.LOGITS], TENSORRT_SCHEME, case.ranges, [case.feeds], seed=0, precisions=(Precision.INT4,)
    )
    assert [(trace.layer, trace.site) for trace in found] == [(layer.name, "weight") for layer in case.layers if layer.weight is not None]
    assert {trace.precision for trace in found} == {Precision.INT4}


def test_levels_other_than_the_nearest_have_no_estimate() -> None:
    case = probed(linear(), samples_for(linear(), 4))
    levels = {(case.layers[0].name, Precision.INT4): np.ones((INPUTS, OUTPUTS), dtype=np.int8)}
    reference = ReferenceModel(case.model, case.layers, case.ranges, case.scheme, levels=levels)
    assert sites(reference, case.layers[0], case.scheme, Precision.INT4) == ()
    assert sites(reference, case.layers[0], case.scheme, Precision.INT8) != ()
    assert sites(case.reference(), case.layers[0], case.scheme, Precision.INT4) == ("weight",)


def test_each_precision_has_its_own_rounding_of_the_same_trace() -> None:
    case = probed(linear(), samples_for(linear(), 8), scheme=TENSORRT_SCHEME)
    precisions = (Precision.INT8, Precision.FP8, Precision.INT4, Precision.FP16)
    found = measure_traces(case.reference(), KINDS, TENSORRT_SCHEME, case.ranges, [case.feeds], seed=0, precisions=precisions)
    by_place = {(trace.site, trace.precision): trace for trace in found}
    assert set(by_place) == {
        ("weight", Precision.INT8),
        ("weight", Precision.FP8),
        ("weight", Precision.INT4),
        ("input0", Precision.INT8),
        ("input0", Precision.FP8),
    }
    assert len({trace.trace for trace in found if trace.site == "weight"}) == 1
    weight = onnx.numpy_helper.to_array(case.model.graph.initializer[0])
    scale = np.repeat(block_scale(weight, 0, block=32, bits=4), 32, axis=0)[: len(weight)]
    blocks = np.round(weight / scale) * scale
    assert by_place["weight", Precision.INT4].rounding == pytest.approx(float(np.sum((weight - blocks) ** 2)), rel=1e-5)
    x = case.feeds["x"].astype(np.float32)
    fp8 = E4M3.round_activation(x, *case.ranges["x"], symmetric=True)
    assert by_place["input0", Precision.FP8].rounding == pytest.approx(float(np.sum((x - fp8) ** 2)) / len(x), rel=1e-5)


def test_what_a_softmax_writes_is_rounded_in_the_range_that_the_dialect_has() -> None:
    text = "g (float[N,6] x) => (float[N,5] y) { s = Softmax(x)  y = Gemm(s, w) }"
    model = model_from_text(text, {"w": (INPUTS, OUTPUTS)})
    case = probed(model, samples_for(model, 8), scheme=TENSORRT_SCHEME)
    layer = case.layers[0]
    ranges = {**case.ranges, layer.inputs[0]: (0.0, 0.4)}
    found = measure_traces(case.reference(), KINDS, TENSORRT_SCHEME, ranges, [case.feeds], seed=0)
    x = case.feeds["x"].astype(np.float32)
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    error = fake_quantize_activation(softmax, 0.0, 1.0, bits=8, symmetric=True) - softmax
    assert next(trace for trace in found if trace.site == "input0").rounding == pytest.approx(float(np.sum(error**2)) / len(x), rel=0.02)


def test_a_network_gets_a_settled_trace_for_every_site() -> None:
    case = probed(cnn(), samples_for(cnn(), 8))
    halves: list[dict[str, Array]] = [{"input": part} for part in np.split(case.feeds["input"], 2)]
    told: list[int] = []
    found = measure_traces(
        case.reference(2), [OutputKind.LOGITS], case.scheme, case.ranges, halves, seed=0, workers=2, on_batch=told.append
    )
    assert [(trace.layer, trace.site) for trace in found] == [
        (layer.name, site) for layer in case.layers for site in sites(case.reference(), layer, case.scheme, Precision.INT8)
    ]
    assert all(trace.trace > 0 and trace.settled for trace in found)
    assert told == [1, 2]


@pytest.mark.parametrize(
    ("bend", "noise"),
    [(0.0, 0.0), (1e3, 0.0), (3e5, 0.0), (0.0, 1e-10), (0.0, 3e-7), (1e2, 1e-9)],
    ids=["flat", "bends late", "bends early", "faint noise", "loud noise", "both"],
)
def test_a_settled_step_lies_on_the_plateau(bend: float, noise: float) -> None:
    """Curvature 5 with fourth-order terms at large steps and rounding noise at small ones."""
    step, settled, value = settled_step(lambda step: 5.0 * (1 + bend * step**2 + noise / step**2))
    assert settled
    assert value == 5.0 * (1 + bend * step**2 + noise / step**2) == pytest.approx(5.0, rel=2 * AGREEMENT)


def test_a_curvature_without_a_plateau_does_not_settle() -> None:
    _, settled, _ = settled_step(lambda step: step**-2)
    assert not settled


def test_a_tensor_without_any_effect_settles_at_zero() -> None:
    assert settled_step(lambda step: 0.0)[1:] == (True, 0.0)


def test_a_batch_in_parts_gives_the_traces_of_the_whole(case: Probed) -> None:
    whole, parts = (
        measure_traces(case.reference(), KINDS, case.scheme, case.ranges, [case.feeds] * 3, seed=1, most=most) for most in (None, 5)
    )
    for one, other in zip(whole, parts, strict=True):
        assert (one.layer, one.site, one.size, one.probes) == (other.layer, other.site, other.size, other.probes)
        # The directions are the same; a step in units of the part's own root mean square is another point of the same plateau.
        assert other.trace == pytest.approx(one.trace, rel=5e-3)
        assert other.rounding == pytest.approx(one.rounding, rel=1e-5)


def selecting() -> Probed:
    """Half of the model reads the rows that a flag selects."""
    model = model_from_text(
        """g (float[N,6] x, bool[N] keep) => (float[N,5] y) {
            rows = Compress<axis=0>(x, keep) a = MatMul(rows, wa) t = ReduceSum<keepdims=1>(a, first) b = MatMul(x, wb) y = Add(b, t) }""",
        {"wa": (6, 5), "wb": (6, 5)},
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    return probed(model, {**samples_for(model, 8), "keep": np.ones(8, np.bool_)})


def test_a_tensor_is_probed_where_it_is_not_empty() -> None:
    case = selecting()
    reference, some = case.reference(), dict(case.feeds)
    none = {**some, "keep": np.zeros(8, np.bool_)}

    def probes(batches: list[dict[str, Array]], allowed: float | None = None) -> dict[tuple[str, str], int]:
        found = measure_traces(reference, KINDS, case.scheme, case.ranges, batches, seed=0, most=4, allowed=allowed)
        assert all(math.isfinite(trace.sensitivity) for trace in found)
        return {(trace.layer, trace.site): trace.probes for trace in found}

    selected, other = case.layer("a").name, case.layer("b").name
    assert probes([some, none, none])[selected, "input0"] == 1
    assert probes([none, some], 0.1)[selected, "input0"] == 1
    found = probes([none, none])
    assert (selected, "input0") not in found
    assert found[other, "input0"] == 2


def test_a_layer_is_probed_for_the_precisions_that_it_can_take() -> None:
    case = selecting()
    eligible = {case.layer("b").name: ["int8"]}
    found = measure_traces(case.reference(), KINDS, case.scheme, case.ranges, [case.feeds], seed=0, eligible=eligible)
    assert {trace.layer for trace in found} == eligible.keys()
