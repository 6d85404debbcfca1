from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from examples.fashion_mnist.prepare import MODELS, PIXEL_DEVIATION, PIXEL_MEAN, network_input, write_calibration, write_validation


def check(path: Path, samples: int) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays) == {"input", "labels"}
        assert (arrays["input"].shape, arrays["input"].dtype) == ((samples, 1, 28, 28), np.float32)
        assert (arrays["labels"].shape, arrays["labels"].dtype) == ((samples,), np.int64)


def test_calibration_file_has_the_models_input_and_labels(tmp_path: Path) -> None:
    check(write_calibration(tmp_path, samples=16), 16)


def test_validation_file_holds_every_test_picture(tmp_path: Path) -> None:
    check(write_validation(tmp_path), 10_000)


def test_same_seed_gives_the_same_calibration_bytes(tmp_path: Path) -> None:
    first, again, other = (write_calibration(tmp_path / str(i), samples=16, seed=seed).read_bytes() for i, seed in enumerate((3, 3, 4)))
    assert first == again
    assert first != other


def test_pixels_are_normalised_as_in_training() -> None:
    black_and_white = np.array([[[0, 255]]], dtype=np.uint8)
    expected = [-PIXEL_MEAN / PIXEL_DEVIATION, (1 - PIXEL_MEAN) / PIXEL_DEVIATION]
    np.testing.assert_allclose(network_input(black_and_white).ravel(), expected, rtol=1e-6)  # float32 rounding


@pytest.mark.parametrize("name", sorted(MODELS))
def test_example_model_takes_what_prepare_writes(name: str) -> None:
    graph = onnx.load(MODELS[name]).graph
    assert [value.name for value in graph.input] == ["input"]
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim][1:] == [1, 28, 28]
