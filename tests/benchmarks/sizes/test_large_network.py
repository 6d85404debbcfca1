from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.sizes.centring import centre_logits
from benchmarks.sizes.large_network import LargeNetwork


def write(path: Path, *, one_file: bool) -> None:
    with LargeNetwork(path) as network:
        hidden = network.node("Relu", network.dense("x", (64, 256), gain=2.0))
        weight, bias = network.constant(network.normal(256, 4, deviation=0.1)), network.constant(np.full(4, 3.0))
        network.node("Gemm", hidden, weight, bias, called="y")
        network.save({"x": ("float32", ("n", 64))}, {"y": ("float32", ("n", 4))}, one_file=one_file)


def run(path: Path, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("one_file", [True, False])
def test_large_weights_lie_where_they_are_asked_for(tmp_path: Path, one_file: bool) -> None:
    write(tmp_path / "model.onnx", one_file=one_file)
    assert (tmp_path / "model.onnx.data").exists() is not one_file
    assert ((tmp_path / "model.onnx").stat().st_size > 4 * 64 * 256) is one_file


def test_both_forms_compute_the_same(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    for one_file in (True, False):
        (tmp_path / str(one_file)).mkdir()
        write(tmp_path / str(one_file) / "model.onnx", one_file=one_file)
    np.testing.assert_array_equal(run(tmp_path / "True" / "model.onnx", x), run(tmp_path / "False" / "model.onnx", x))


def test_convolution_keeps_the_size_of_its_input(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 16, 20, 20)).astype(np.float32)
    with LargeNetwork(tmp_path / "model.onnx") as network:
        network.node("Identity", network.convolution("x", (16, 32), 3, gain=1.0), called="y")
        network.save({"x": ("float32", x.shape)}, {"y": ("float32", (4, 32, 20, 20))}, one_file=True)
    found = run(tmp_path / "model.onnx", x)
    assert found.std() == pytest.approx(1.0, abs=0.15)  # borders see zeros: a tenth of their inputs' variance is missing


def test_centred_logits_have_no_mean(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    write(tmp_path / "model.onnx", one_file=True)
    before = run(tmp_path / "model.onnx", x)
    centre_logits(tmp_path / "model.onnx", {"x": x})
    after = run(tmp_path / "model.onnx", x)
    np.testing.assert_allclose(after, before - before.mean(axis=0), atol=1e-5)  # float32 sums of 256 terms
