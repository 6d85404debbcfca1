"""How many probes a trace gets: more only where the budget's boundary depends on them."""

from __future__ import annotations

import math

import numpy as np
import onnx

from calibration.accuracy.metrics import OutputKind
from calibration.number_formats.precision import TENSORRT_SCHEME
from calibration.sensitivity.hessian_trace import FIRST_PROBES, measure_traces
from calibration.sensitivity.records import HessianTrace
from tests.model_text import cnn, model_from_text, samples_for
from tests.probed_models import probed

INPUTS, OUTPUTS = 6, 5
KINDS = (OutputKind.VALUES,)


def branches() -> onnx.ModelProto:
    """Return independent layers side by side, of which a and b cost about as much, c a hundredth, and d ten thousand times as much."""
    text = "g (float[N,6] x) => (float[N,20] y) { ya = Gemm(x, a)  yb = Gemm(x, b)  yc = Gemm(x, c)  yd = Gemm(x, d) "
    model = model_from_text(text + "y = Concat<axis = 1>(ya, yb, yc, yd) }", dict.fromkeys("abcd", (INPUTS, OUTPUTS)))
    for tensor, factor in zip(model.graph.initializer, (1.0, 1.0, 0.1, 100.0), strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return model


def adaptive(allowed: float | None, *, workers: int = 1) -> dict[tuple[str, str], HessianTrace]:
    """Return the traces of the branches in at most 12 probes."""
    case = probed(branches(), samples_for(branches(), 32))
    found = measure_traces(
        case.reference(), KINDS, TENSORRT_SCHEME, case.ranges, [case.feeds] * 12, seed=0, allowed=allowed, workers=workers
    )
    weights = {layer.name: str(layer.weight) for layer in case.layers}
    return {(weights[trace.layer], trace.site): trace for trace in found}


def test_only_layers_at_the_budgets_boundary_get_more_probes() -> None:
    every = adaptive(None)
    cost = {name: sum(trace.sensitivity for (layer, _), trace in every.items() if layer == name) for name in "abcd"}
    found = adaptive(1.5 * min(cost["a"], cost["b"]))
    assert {trace.probes for trace in every.values()} == {12}
    probes = {name: max(trace.probes for (layer, _), trace in found.items() if layer == name) for name in "abcd"}
    assert (probes["c"], probes["d"]) == (FIRST_PROBES, FIRST_PROBES)
    assert max(probes["a"], probes["b"]) > FIRST_PROBES


def test_traces_in_few_probes_are_those_of_many_within_their_errors() -> None:
    every = adaptive(None)
    found = adaptive(sum(trace.sensitivity for trace in every.values()) / 2)
    assert any(trace.probes < 12 for trace in found.values())
    for key, trace in found.items():
        spread = every[key].error * math.sqrt(12 / trace.probes)  # of so few probes, known from the many
        assert abs(trace.trace - every[key].trace) <= 4 * spread + 0.01 * every[key].trace


def test_the_choice_of_more_probes_repeats_whatever_the_workers() -> None:
    assert adaptive(1e-4) == adaptive(1e-4, workers=3)


def test_a_budget_that_all_layers_surely_keep_ends_the_probes_early() -> None:
    case = probed(cnn(), samples_for(cnn(), 8))
    told: list[int] = []
    feeds = [case.feeds] * 9
    found = measure_traces(
        case.reference(), [OutputKind.LOGITS], case.scheme, case.ranges, feeds, seed=0, allowed=1e9, on_batch=told.append
    )
    assert FIRST_PROBES in {trace.probes for trace in found}
    assert told[-1] == max(trace.probes for trace in found)
