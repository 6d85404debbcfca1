"""Ranges against plain numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.errors import CalibrationError, InvalidCalibrationSetError
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.nonfinite import Special
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod, RangeTable
from tests.model_text import ModelMaker, cnn, model_from_text, one_batch, samples_for
from tests.models import AWKWARD
from tests.probed_models import layer_tensors

METHODS = pytest.mark.parametrize("method", list(RangeMethod))


def split(feeds: Mapping[str, Array], size: int) -> Iterator[dict[str, Array]]:
    count = len(next(iter(feeds.values())))
    for start in range(0, count, size):
        yield {name: value[start : start + size] for name, value in feeds.items()}


def saved(model: onnx.ModelProto, folder: Path) -> tuple[Path, tuple[Layer, ...], onnx.ModelProto]:
    ready = prepare(model).model
    path = folder / "prepared.onnx"
    onnx.save(ready, path)
    return path, find_layers(ready), ready


def ranges_of(model: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path, method: RangeMethod, size: int = 8) -> RangeTable:
    path, layers, _ = saved(model, folder)
    return collect_ranges(path, layers, split(feeds, size), method=method)


@pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD.keys())
def test_minmax_is_the_lowest_and_highest_value_of_every_tensor_of_a_layer(maker: ModelMaker, tmp_path: Path) -> None:
    model = maker()
    path, layers, ready = saved(model, tmp_path)
    feeds = one_batch(model)
    found = collect_ranges(path, layers, [feeds], method=RangeMethod.MINMAX)
    expected = layer_tensors(ready, layers, feeds)
    assert found.ranges.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found.ranges[name], (value.min(), value.max()), rtol=1e-4, atol=1e-5)


def test_minmax_covers_all_batches_and_counts_their_samples(tmp_path: Path) -> None:
    feeds = samples_for(cnn(), 20)
    whole = ranges_of(cnn(), feeds, tmp_path, RangeMethod.MINMAX, size=20)
    parts = ranges_of(cnn(), feeds, tmp_path, RangeMethod.MINMAX, size=3)
    assert whole.samples == parts.samples == 20
    assert parts.ranges.keys() == whole.ranges.keys()
    for name, span in whole.ranges.items():
        np.testing.assert_allclose(parts.ranges[name], span, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [RangeMethod.PERCENTILE, RangeMethod.ENTROPY])
def test_the_other_methods_stay_inside_minmax(method: RangeMethod, tmp_path: Path) -> None:
    feeds = samples_for(cnn(), 16)
    outer = ranges_of(cnn(), feeds, tmp_path, RangeMethod.MINMAX)
    found = ranges_of(cnn(), feeds, tmp_path, method)
    assert found.ranges.keys() == outer.ranges.keys()
    for name, (low, high) in found.ranges.items():
        assert outer.ranges[name][0] - 1e-5 <= low < high <= outer.ranges[name][1] + 1e-5


def test_percentile_leaves_out_a_rare_outlier(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,400] x) => (float[N,2] y) { y = MatMul(x, w) }", {"w": (400, 2)})
    feeds = samples_for(model, 512)
    feeds["x"][0, 0] = 1000.0  # one value of 204,800; the method leaves out two
    assert ranges_of(model, feeds, tmp_path, RangeMethod.MINMAX, size=128).ranges["x"][1] == 1000.0
    assert ranges_of(model, feeds, tmp_path, RangeMethod.PERCENTILE, size=128).ranges["x"][1] < 100.0


@METHODS
@pytest.mark.parametrize(("value", "special"), [(-1.0, Special.NAN), (np.inf, Special.PLUS_INFINITY), (2e76, Special.FAR)])
def test_a_range_is_of_the_finite_values_and_what_else_a_tensor_holds_is_told(
    method: RangeMethod, value: float, special: Special, tmp_path: Path
) -> None:
    model = model_from_text("g (double[N,4] x) => (float[N,2] y) { s = Sqrt(x) a = Cast<to=1>(s) y = MatMul(a, w) }", {"w": (4, 2)})
    feeds = {"x": np.abs(samples_for(model, 12)["x"])}
    plain = ranges_of(model, feeds, tmp_path, method, size=4)
    feeds["x"][11, 2] = value
    found = ranges_of(model, feeds, tmp_path, method, size=4)
    assert special in found.specials["a"]
    assert not found.can_round(["a"])
    assert plain.can_round(["a", "y"])
    if special is not Special.FAR:  # a finite one
        assert found.ranges["a"][1] <= plain.ranges["a"][1] + 1e-6


@METHODS
def test_an_empty_tensor_adds_nothing_to_a_range_and_one_that_always_is_has_none(method: RangeMethod, tmp_path: Path) -> None:
    model = model_from_text(
        """g (float[N,4] x, bool[N] keep) => (float[M,2] y) { rows = Compress<axis=0>(x, keep) y = MatMul(rows, w) }""", {"w": (4, 2)}
    )
    x, keep = samples_for(model, 12)["x"], np.arange(12) >= 8
    some, none = (ranges_of(model, {"x": x, "keep": mask}, tmp_path, method, size=4) for mask in (keep, np.zeros(12, np.bool_)))
    plain = ranges_of(model, {"x": x[8:], "keep": keep[8:]}, tmp_path, method, size=4)
    assert some.ranges == plain.ranges
    assert (some.empty, none.empty) == ((), ("rows", "y"))
    assert (some.can_round(["rows"]), none.can_round(["rows"]), none.ranges) == (True, False, {})


def test_an_input_beyond_fp16_has_a_range_though_no_layer_reads_it(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,4] x, float[N,2] m) => (float[N,2] y) { s = MatMul(x, w) y = Mul(s, m) }", {"w": (4, 2)})
    feeds = {"x": np.ones((4, 4), np.float32), "m": np.full((4, 2), -1e9, np.float32)}
    assert ranges_of(model, feeds, tmp_path, RangeMethod.MINMAX).ranges["m"] == (-1e9, -1e9)
    feeds["m"][:] = -np.inf  # which FP16 holds
    assert "m" not in ranges_of(model, feeds, tmp_path, RangeMethod.MINMAX).ranges


@METHODS
def test_a_constant_tensor_has_a_range(method: RangeMethod, tmp_path: Path) -> None:
    model = model_from_text("g (float[N,4] x) => (float[N,2] y) { y = MatMul(x, w) }", {"w": (4, 2)})
    found = ranges_of(model, {"x": np.zeros((8, 4), np.float32)}, tmp_path, method)
    low, high = found.ranges["x"]
    assert low <= 0.0 <= high


def test_a_model_that_cannot_run_on_the_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError):
        ranges_of(cnn(), {"input": np.zeros((4, 2, 8, 8), np.float32)}, tmp_path, RangeMethod.MINMAX)


def test_progress_counts_samples(tmp_path: Path) -> None:
    path, layers, _ = saved(cnn(), tmp_path)
    told: list[int] = []
    feeds = samples_for(cnn(), 10)
    collect_ranges(path, layers, split(feeds, 4), method=RangeMethod.MINMAX, on_batch=told.append)
    assert told == [4, 8, 10]


@pytest.mark.parametrize("span", [(0.0, np.inf), (np.nan, 1.0), (2.0, 1.0)])
def test_a_range_that_is_none_is_refused(span: tuple[float, float]) -> None:
    with pytest.raises(InvalidCalibrationSetError, match="'x'"):
        RangeTable({"x": span}, RangeMethod.MINMAX, 1)
