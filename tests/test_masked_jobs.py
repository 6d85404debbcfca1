"""Whole jobs on models that are infinite or NaN inside, or empty, and right in their outputs: the engines are right there too."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.accuracy.measures.values import cosine
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from tests.driver import Finished, plain_outputs, run_job, trials_of
from tests.long_cases import mostly_long
from tests.masked_models import LOWEST, Masked, masked
from tests.model_text import Array, model_from_text, samples_for

INF = np.inf
CONFIG = {"accuracy": {"metric": "cosine", "min_relative": 0.98}, "search": {"max_trials": 2}}
RTX = {**CONFIG, "target": "tensorrt-rtx", "gpu": "RTX 4090"}
needs_builder = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
TARGETS = pytest.mark.parametrize("config", [CONFIG, pytest.param(RTX, marks=needs_builder)], ids=["onnxruntime-cpu", "tensorrt-rtx"])
CASES = [  # every mask and every end once, an additive mask in each of its forms
    ("bool, Where -inf", "masked logits", -INF),
    ("bool, Where lowest", "log of probabilities", -INF),
    ("bool, both sides", "tokens", -INF),
    ("int, times lowest", "lowest logits", -INF),
    ("int, two sums", "mean of classes", -INF),
    ("int, log", "tokens", -INF),
    ("int, -1e9", "logits of -1e9", -INF),
    ("additive", "tokens", -INF),
    ("additive, full", "lowest logits", LOWEST),
    ("additive, full", "mean of classes", -1e9),
]


def explicit_outputs(finished: Finished, samples: Mapping[str, Array]) -> Array:
    """Return what the shipped explicit model computes, as the engine of its target does."""
    artifacts = finished.outcome.artifacts
    assert "model.explicit.onnx" in artifacts
    runner = OrtCpuRunner(finished.path(artifacts["model.explicit.onnx"]), threads=1, as_written=True)
    try:
        return runner.run(samples)[0]
    finally:
        runner.close()


def assert_right(one: Masked, got: Array) -> None:
    """Check that nothing in the first output is NaN, that the same ones are masked, and that the others are close."""
    expected = plain_outputs(one.model.SerializeToString(), one.samples, 8)[0]
    assert not np.isnan(got).any()
    np.testing.assert_array_equal(np.abs(got) > 1e38, np.abs(expected) > 1e38)
    assert float(cosine(expected, got).mean()) > 0.98


@TARGETS
@pytest.mark.parametrize(
    ("mask", "end", "hidden"), mostly_long(CASES, quick=2), ids=[f"{mask}; {end}; {hidden:g}" for mask, end, hidden in CASES]
)
def test_a_masked_transformer_becomes_an_engine_with_its_outputs(
    mask: str, end: str, hidden: float, config: Mapping[str, object], tmp_path: Path
) -> None:
    one = masked(mask, end, hidden=hidden)
    finished = run_job(tmp_path, one.model, one.samples, config=config)
    quantized = next(trial for trial in trials_of(finished) if trial.order == "all_low")
    assert (quantized.failure, quantized.met) == (None, True)
    assert quantized.on_all is not None
    assert quantized.on_all.score < 1.0 - 1e-6  # by the values that count: beside masks that do, all would be perfect
    assert quantized.low_layers >= 5  # of 8 or 9; where rows are NaN three read or write them
    assert_right(one, explicit_outputs(finished, one.samples))


@TARGETS
def test_nan_padded_rows_keep_their_layers_float_and_the_report_names_them(config: Mapping[str, object], tmp_path: Path) -> None:
    one = masked("bool, both sides", "tokens")
    finished = run_job(tmp_path, one.model, one.samples, config=config)
    assert "2 layers stay float because of what they read or write: 'MatMul_c' reads 'p', which holds NaN" in finished.notes
    for trial in trials_of(finished):
        assert not {"MatMul_c", "MatMul_o"} & trial.precisions.keys()


@TARGETS
def test_two_masks_whose_sum_is_infinite_are_no_overflow(config: Mapping[str, object], tmp_path: Path) -> None:
    one = masked("int, two sums", "tokens")
    finished = run_job(tmp_path, one.model, one.samples, config=config)
    assert "'Add_mask' reads 'big', which holds values beyond 1e38" in finished.notes
    baseline = cast(float, finished.baseline["accuracy"])
    assert baseline == pytest.approx(1.0, abs=1e-5)  # FP16 at the most


def selecting(flags: Array) -> Masked:
    """A branch reads the rows that a flag selects, and adds what they hold in common."""
    model = model_from_text(
        """g (float[N,32] x, int64[N] flag) => (float[N,5] y) {
            keep = Cast<to=9>(flag) rows = Compress<axis=0>(x, keep) h = MatMul(rows, w1) act = Relu(h)
            t = ReduceSum<keepdims=1>(act, first) none = Mul(t, nought) z = MatMul(none, w2)
            a = Gemm(x, w3, b3) ra = Relu(a) y0 = MatMul(ra, w4) y = Add(y0, z) }""",
        {"w1": (32, 32), "w2": (32, 5), "w3": (32, 32), "b3": (32,), "w4": (32, 5)},
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nought"))
    return Masked(model, {"x": samples_for(model, len(flags))["x"], "flag": flags})


@pytest.mark.parametrize("selected", [0, 6])
def test_a_product_of_no_rows_on_some_samples_or_all(selected: int, tmp_path: Path) -> None:
    one = selecting((np.arange(48) >= 48 - selected).astype(np.int64))
    finished = run_job(tmp_path, one.model, one.samples, config={**CONFIG, "accuracy": {"min_relative": 0.9}})
    quantized = next(trial for trial in trials_of(finished) if trial.order == "all_low")
    assert quantized.failure is None
    assert ("MatMul_h" in quantized.precisions) == bool(selected)
    assert ("'MatMul_h' reads 'rows', which is empty on every calibration sample" in finished.notes) != bool(selected)
    assert_right(one, explicit_outputs(finished, one.samples))


@TARGETS
def test_a_weight_of_no_rows_stays_float(config: Mapping[str, object], tmp_path: Path) -> None:
    model = model_from_text(
        """g (float[N,64] x) => (float[N,8] y) {
            h = MatMul(x, w1) r = Relu(h) none = Slice(r, zero, zero, one) z = MatMul(none, w0) y0 = MatMul(r, w2) y = Add(y0, z) }""",
        {"w1": (64, 96), "w0": (0, 8), "w2": (96, 8)},
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.array([value]), name) for name, value in (("zero", 0), ("one", 1)))
    one = Masked(model, samples_for(model, 40))
    finished = run_job(tmp_path, model, one.samples, config={**config, "accuracy": {"metric": "cosine", "min_relative": 0.98}})
    assert "1 layer stays float because of what it reads or writes: 'MatMul_z' reads 'none', which is empty" in finished.notes
    assert trials_of(finished)[1].failure is None
    assert_right(one, explicit_outputs(finished, one.samples))


def test_an_empty_input_and_an_empty_output_are_taken(tmp_path: Path) -> None:
    model = model_from_text(
        """g (float[N,4,32] x, float[N,P,32] past) => (float[N,4,5] y, float[N,4,0] nothing) {
            k0 = MatMul(x, wk) k = Concat<axis=1>(past, k0) kt = Transpose<perm=[0,2,1]>(k) q = MatMul(x, wq) s = MatMul(q, kt)
            p = Softmax<axis=-1>(s) c = MatMul(p, k) y = MatMul(c, wo) nothing = Slice(c, zero, zero, two) }""",
        {"wk": (32, 32), "wq": (32, 32), "wo": (32, 5)},
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.array([value]), name) for name, value in (("zero", 0), ("two", 2)))
    one = Masked(model, {"x": samples_for(model, 40)["x"], "past": np.zeros((40, 0, 32), np.float32)})
    finished = run_job(tmp_path, model, one.samples, config=CONFIG)
    assert "output 'nothing' is empty" in finished.notes
    assert trials_of(finished)[1].low_layers >= 5
    assert_right(one, explicit_outputs(finished, one.samples))


def everywhere_nan() -> onnx.ModelProto:
    model = model_from_text(
        """g (float[N,6,32] x, bool[N,6] m) => (float[N,6,5] y) {
            k = Unsqueeze(m, two) marked = Where(k, x, nan) h = MatMul(marked, w1) a = Relu(h)
            h2 = MatMul(a, w2) y = Where(k, h2, nought) }""",
        {"w1": (32, 32), "w2": (32, 5)},
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("nan", np.nan), ("nought", 0))
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two"))
    return model


def test_where_every_layer_reads_nan_the_baseline_is_kept_for_that_reason(tmp_path: Path) -> None:
    valid = np.arange(6) < (1 + np.arange(40) % 6)[:, None]
    finished = run_job(tmp_path, everywhere_nan(), {"x": samples_for(everywhere_nan(), 40)["x"], "m": valid}, config=CONFIG)
    assert finished.result["outcome"] == "baseline_kept"
    assert finished.result["reason"] == "No low-precision engine was tried: no layer can take a lower precision."
    assert "2 layers stay float" in finished.notes


def test_a_model_that_replaces_missing_values_is_given_them(tmp_path: Path) -> None:
    model = model_from_text(
        """g (float[N,32] x) => (float[N,5] y) {
            n = IsNaN(x) full = Where(n, nought, x) h = MatMul(full, w1) a = Relu(h) y = MatMul(a, w2) }""",
        {"w1": (32, 32), "w2": (32, 5)},
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nought"))
    x = samples_for(model, 40)["x"]
    x[::4, 3] = np.nan
    finished = run_job(tmp_path, model, {"x": x}, config=CONFIG)
    assert "array 'x' holds NaN in 10 of 40 samples, first in sample 0: taken as it is" in finished.notes
    assert trials_of(finished)[1].low_layers == 2
    assert_right(Masked(model, {"x": x}), explicit_outputs(finished, {"x": x}))


@TARGETS
def test_a_layer_with_an_infinite_weight_stays_float(config: Mapping[str, object], tmp_path: Path) -> None:
    text = """g (float[N,32] x) => (float[N,4] y) {
        a = Abs(x) h = MatMul(a, v) low = Constant<value = float {0.0}>() high = Constant<value = float {6.0}>() c = Clip(h, low, high)
        m = MatMul(c, w) r = Relu(m) y = MatMul(r, u)
    }"""
    model = model_from_text(text, {"v": (32, 64), "w": (64, 64), "u": (64, 4)})
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[:, 5] = INF
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "v"))
    samples = samples_for(model, 32)
    finished = run_job(tmp_path, model, samples, samples_for(model, 24), config={**config, "accuracy": {"min_relative": 0.7}})
    explicit = explicit_outputs(finished, samples)
    np.testing.assert_allclose(explicit, plain_outputs(model.SerializeToString(), samples, 8)[0], rtol=0.2, atol=0.2)
    assert "reads 'v', which holds +inf" in finished.notes
