from __future__ import annotations

from collections.abc import Iterable

import pytest

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from engine_builder.backends.kernels import KernelTime
from engine_builder.profiling.borders import borders_between
from engine_builder.profiling.graph_sites import GraphSites
from engine_builder.profiling.kernel_costs import Profile, kernel_costs
from engine_builder.search.times.learned_times import GROUPS, KernelCosts
from tests.model_text import model_from_text

MODEL = prepare(
    model_from_text(
        """g (float[N,16,8,8] x) => (float[N,16,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1)
            h = Softplus(a)
            y = Conv<pads=[1,1,1,1]>(h, w2)
        }""",
        {"w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3)},
    )
).model
LAYERS = find_layers(MODEL)
SITES = GraphSites(MODEL, LAYERS)
SIZES = {"x": 1000, "a": 1000, "h": 1000, "y": 1000}
NAMES = ("Conv_a", "Conv_y")


def low(names: Iterable[str]) -> dict[str, Precision]:
    return dict.fromkeys(names, Precision.INT8)


def engine(
    names: Iterable[str], ratio: float | None, first: float, between: float, last: float, scale: float = 1.0, extra: float = 0.0
) -> Profile:
    """Return a profile: kernels take ``scale`` times as long, and ``extra`` milliseconds more each."""
    taken = [("Conv_a", "Conv", first), ("Softplus_h", "Softplus", between), ("Conv_y", "Conv", last)]
    kernels = [KernelTime((name,), spent * scale + extra, operator, "float", 1000) for name, operator, spent in taken]
    if names:
        kernels.append(KernelTime(("q",), 0.2 * scale + extra, "QuantizeLinear", "float", 1000))
    return Profile(low(names), ratio, tuple(kernels))


FLOAT = engine((), 1.0, 4.0, 1.0, 5.0)
LOW = engine(NAMES, 0.62, 2.0, 1.0, 3.0)


def costs(*profiles: Profile) -> KernelCosts:
    return kernel_costs(profiles, SITES, borders_between(MODEL, LAYERS, ONNXRUNTIME_CPU_SCHEME, SIZES), ())


def test_a_layer_gains_what_its_own_kernel_saves() -> None:
    found = costs(FLOAT, LOW)
    assert found.baseline_ms == pytest.approx(10.0)
    assert found.gain_ms == {
        LayerPrecision("Conv_a", Precision.INT8): pytest.approx(2.0),
        LayerPrecision("Conv_y", Precision.INT8): pytest.approx(2.0),
    }


def test_a_profile_of_a_busier_moment_is_brought_to_what_its_engine_was_timed_at() -> None:
    busy = costs(FLOAT, engine(NAMES, 0.62, 2.0, 1.0, 3.0, scale=1.7))
    # What is left is taken for the profiler's own time: at most 0.004 ms of each kernel.
    assert busy.gain_ms == pytest.approx(costs(FLOAT, LOW).gain_ms, abs=0.004)


def test_the_profilers_own_time_is_taken_off_every_kernel() -> None:
    slow = [engine((), 1.0, 4.0, 1.0, 5.0, extra=0.003), engine(NAMES, 0.62, 2.0, 1.0, 3.0, extra=0.003)]
    found = costs(*slow)
    assert found.baseline_ms == pytest.approx(10.0, abs=1e-3)
    assert found.gain_ms == pytest.approx(costs(FLOAT, LOW).gain_ms, abs=1e-3)


def test_a_conversion_takes_what_it_took_in_any_of_the_engines() -> None:
    shares = dict(zip(GROUPS, costs(FLOAT, LOW).shares(low(["Conv_y"])), strict=True))
    assert shares["quantize"] == pytest.approx(0.02)


def test_a_kernel_between_layers_takes_what_it_took_between_such_layers() -> None:
    half = engine(["Conv_a"], None, 2.0, 4.0, 5.0)
    found = costs(FLOAT, LOW, half)
    shares = {
        names: dict(zip(GROUPS, found.shares(low(names)), strict=True))["other kernels"] for names in (("Conv_a",), ("Conv_y",), NAMES)
    }
    assert shares == pytest.approx({("Conv_a",): 0.3, ("Conv_y",): 0.0, NAMES: 0.0})


def test_what_a_layer_takes_longer_beside_others_is_read_off_an_engine_with_both() -> None:
    half = engine(["Conv_a"], None, 2.5, 1.0, 7.0)
    terms = {term.layer: term for term in costs(FLOAT, LOW, half).neighbours}
    assert terms["Conv_y"].float_ms == pytest.approx(2.0)
    assert terms["Conv_a"].quantized_ms == pytest.approx(0.5)
