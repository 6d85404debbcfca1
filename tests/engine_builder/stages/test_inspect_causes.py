"""What the first stage names as the cause where samples, labels and model do not fit, in the terms of the user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.errors import InputError
from tests.driver import Samples, inspected, submitted
from tests.model_text import cnn, model_from_text, samples_for

ROWS = {"x": np.random.default_rng(5).normal(size=(12, 6)).astype(np.float32)}


def problem(folder: Path, model: onnx.ModelProto, calibration: Samples) -> InputError:
    """Run the stage, which must refuse, and return the error."""
    driver, job = submitted(folder, model, calibration)
    with pytest.raises(InputError) as caught:
        inspected(driver, job)
    return caught.value


def test_an_infinite_input_that_becomes_nan_is_named_as_the_cause(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { d = Sub(x, x) y = MatMul(d, w) }", {"w": (6, 3)})
    samples = ROWS["x"].copy()
    samples[4, 2] = np.inf
    error = problem(tmp_path, model, {"x": samples})
    assert "array 'x' holds +inf in 1 of 12 samples, first in sample 4" in error.detail
    assert error.fix.startswith("Repair the preprocessing that made these values")


def test_one_hot_rows_of_whole_numbers_are_no_labels_of_tokens(tmp_path: Path) -> None:
    error = problem(tmp_path, cnn(), {**samples_for(cnn(), 10), "labels": np.eye(3, dtype=np.int64)[np.arange(10) % 3]})
    assert "labels: shape (samples, 3) found, (samples,) expected" in error.detail
    assert "labels.argmax(axis=1)" in error.fix


def test_a_model_whose_every_output_is_noisy_is_refused_for_its_noise(tmp_path: Path) -> None:
    text = "g (float[N,6] x) => (float[N,3] y) { r = RandomNormalLike(x) s = Add(x, r) y = MatMul(s, w) }"
    error = problem(tmp_path, model_from_text(text, {"w": (6, 3)}), ROWS)
    assert "output 'y' changes from call to call on the same samples: the model draws random numbers" in error.detail
    assert "with the noise as an input" in error.fix


def test_a_weight_of_nan_is_named_instead_of_the_samples(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, v) r = Relu(h) y = MatMul(r, w) }", {"v": (6, 4), "w": (4, 3)}
    )
    broken = onnx.numpy_helper.to_array(model.graph.initializer[1]).copy()
    broken[2, 1] = np.nan
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(broken, "w"))
    error = problem(tmp_path, model, ROWS)
    assert error.detail == "model: weight 'w' holds NaN, and so does the output 'y'; numbers expected"
    assert "weights are finite" in error.fix
