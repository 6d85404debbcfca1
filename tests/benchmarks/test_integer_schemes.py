"""The comparison of roundings on a small network: every way is measured, and 7 bits are 7 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import integer_schemes
from benchmarks.integer_schemes import Case, in_seven_bits, measure, page
from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import RESIDUAL, measured_ranges, model_of, run, samples_of


def test_every_rounding_is_measured_and_close_to_the_float_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integer_schemes, "TIMING_SECONDS", 0.05)
    model = model_of(RESIDUAL)
    onnx.save_model(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", x=rng.normal(size=(16, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, 16))
    (tmp_path / "scratch").mkdir()
    rows = measure(Case("residual", tmp_path / "model.onnx", tmp_path / "samples.npz", tmp_path / "samples.npz", 2), tmp_path / "scratch")
    assert [row.scheme for row in rows] == ["float", "full range", "7 bits", "pair bound", "U8U8"]
    exact = next(row for row in rows if row.scheme == "pair bound")
    assert exact.sqnr_db > 20
    assert all(row.ratio > 0 for row in rows)
    where = {"integer_kernels": "exact", "processor": "p", "integer_instructions": [], "processors_used": 1, "load_average": 0.0}
    where |= {"system": "s", "python": "3", "onnx": "1", "onnxruntime": "1", "numpy": "2"}
    assert page(rows, where).count("| residual |") == 5


def test_seven_bits_have_half_the_levels_at_twice_the_scale() -> None:
    model = model_of(RESIDUAL)
    layers = find_layers(model)
    feeds = samples_of(model)
    quantized = {layer.name: Precision.INT8 for layer in layers}
    full = rewrite(model, layers, quantized, measured_ranges(model, feeds), ONNXRUNTIME_CPU_SCHEME)
    seven = in_seven_bits(full, model, layers)
    levels = [
        numpy_helper.to_array(tensor) for tensor in seven.graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims
    ]
    assert max(int(np.abs(values).max()) for values in levels) == 63
    expected, found = (run(one, feeds, optimized=False)["y"] for one in (full, seven))
    spread = float(np.std(expected))
    assert 0 < np.abs(found - expected).max() < 0.2 * spread  # another rounding of the same network
