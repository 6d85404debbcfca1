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

from calibration.hessian import AGREEMENT, HessianTrace, measure_traces, settled_step, sites
from calibration.layers import LayerKind
from calibration.metrics import OutputKind
from calibration.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, fake_quantize_activation, fake_quantize_weight
from calibration.session import Array
from tests.model_text import cnn, model_from_text, samples_for
from tests.probed_models import Probed, probed

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
    found = {layer.output: sites(layer, ONNXRUNTIME_CPU_SCHEME) for layer in case.layers}
    assert found["r1"] == ("weight", "input0", "output")
    add = next(layer for layer in case.layers if layer.kind is LayerKind.RESIDUAL_ADD)
    assert sites(add, ONNXRUNTIME_CPU_SCHEME) == ("input0", "input1", "output")
    assert sites(add, TENSORRT_SCHEME) == ("input0", "input1")


def test_a_network_gets_a_settled_trace_for_every_site() -> None:
    case = probed(cnn(), samples_for(cnn(), 8))
    halves: list[dict[str, Array]] = [{"input": part} for part in np.split(case.feeds["input"], 2)]
    told: list[int] = []
    found = measure_traces(
        case.reference(2), [OutputKind.LOGITS], case.scheme, case.ranges, halves, seed=0, workers=2, on_batch=told.append
    )
    assert [(trace.layer, trace.site) for trace in found] == [(layer.name, s) for layer in case.layers for s in sites(layer, case.scheme)]
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
