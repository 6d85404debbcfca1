"""What labels may be: class indices of samples or tokens, or any numbers for a metric of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.labels import any_labels_from, are_numbers, class_labels_from, one_for_each_sample
from calibration.data.dataset import CalibrationSet, load_saved, read_samples
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

Array = NDArray[np.generic]


def test_labels_of_tokens_may_leave_tokens_out() -> None:
    labels = np.array([[1, -100, 0]] * 10, dtype=np.int32)
    found = class_labels_from(labels, 10, "labels")
    assert (found.dtype, found.tolist()) == (np.dtype(np.int64), labels.tolist())


def test_other_negative_labels_of_tokens_are_refused() -> None:
    with pytest.raises(InvalidCalibrationSetError) as caught:
        class_labels_from(np.array([[1, -100, -1]] * 10), 10, "labels")
    assert caught.value.detail == "array 'labels': -1 found, class indices from 0 expected, or -100 for tokens that do not count"


@pytest.mark.parametrize("shape", [(9, 3), (10, 0), (10, 2, 2)])
def test_labels_of_tokens_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=r"found, \(10,\) expected: one class index per sample"):
        class_labels_from(np.zeros(shape, np.int64), 10, "labels")


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_one_hot_rows_are_told_how_to_become_class_indices(dtype: str) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=rf"{dtype} of shape \(10, 3\) found") as caught:
        class_labels_from(np.eye(3, dtype=dtype)[np.arange(10) % 3], 10, "labels")
    assert caught.value.fix == "Convert it: labels.argmax(axis=1), if these are one-hot rows."


@pytest.mark.parametrize(
    ("labels", "found", "fix"),
    [
        (np.array(["cat", "dog"] * 5), "text", "classes.index(label)"),
        (np.array([0.0, np.nan] * 5), "float64 with NaN or infinities", "Remove the samples that have no label"),
        (np.array([0.25, 1.0] * 5), "float64 with fractions", "Leave the labels out if they are no classes"),
        (np.array([0.0, 1.0] * 5), "float64", "Convert it: labels.astype('int64')."),
        (np.array([False, True] * 5), "bool", "Convert it: labels.astype('int64')."),
    ],
)
def test_what_cannot_be_cast_to_whole_numbers_is_not_told_to(labels: Array, found: str, fix: str) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=f"'labels': {found} found, whole numbers expected") as caught:
        class_labels_from(labels, 10, "labels")
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("labels", "fix"),
    [
        (np.arange(10)[:, None], "labels.reshape(-1)"),
        (np.eye(3, dtype=np.int64)[np.arange(10) % 3], "labels.argmax(axis=1)"),
        (np.arange(30).reshape(10, 3), "exactly one label per sample"),
    ],
)
def test_rows_of_labels_for_a_model_without_tokens_are_told_how_to_become_one_each(labels: NDArray[np.int64], fix: str) -> None:
    assert fix in one_for_each_sample(labels)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_several_labels_a_sample_are_not_taken_for_classes(dtype: str) -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0]] * 5).astype(dtype)
    with pytest.raises(InvalidCalibrationSetError, match=r"0 and 1, which of several labels are true of each sample") as caught:
        class_labels_from(labels, 10, "labels")
    assert caught.value.fix == "Convert it: labels.astype('int64'); the metric decisions then compares with them."


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_a_column_of_floats_is_told_how_to_become_classes(dtype: str) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=r"of shape \(10, 1\) found") as caught:
        class_labels_from(np.arange(10)[:, None].astype(dtype), 10, "labels")
    assert caught.value.fix == "Convert it: labels.reshape(-1).astype('int64')."


@pytest.mark.parametrize("labels", [np.arange(10.0), np.zeros((10, 2, 3), np.uint8), np.zeros(10, bool), np.full(10, -7)])
def test_any_numbers_are_labels_for_a_metric_of_ones_own(labels: Array) -> None:
    found = any_labels_from(labels, 10, "labels")
    assert (found.dtype, found.tolist()) == (labels.dtype, labels.tolist())


def test_the_other_byte_order_is_turned() -> None:
    assert any_labels_from(np.arange(10, dtype=">f4"), 10, "labels").dtype == np.dtype("=f4")


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.array(["a"] * 10), "text found, numbers expected"), (np.zeros((9, 2)), r"shape \(9, 2\) found, \(10, ...\) expected")],
)
def test_labels_that_no_metric_can_read_are_refused(labels: Array, words: str) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=words) as caught:
        any_labels_from(labels, 10, "labels")
    assert caught.value.fix


def test_labels_of_a_file_are_read_by_what_the_metric_needs_and_saved_as_they_are(tmp_path: Path) -> None:
    labels = np.arange(20.0).reshape(10, 2)
    np.savez(tmp_path / "set.npz", x=np.ones((10, 3), np.float32), labels=labels)
    specs = [TensorSpec("x", "float32", ("N", 3))]
    with pytest.raises(InvalidCalibrationSetError, match=r"float64 .*found, whole numbers expected"):
        read_samples(tmp_path / "set.npz", specs)
    found: CalibrationSet = read_samples(tmp_path / "set.npz", specs, any_labels=True).take(np.arange(4))
    found.save(tmp_path / "saved.npz")
    again = load_saved(tmp_path / "saved.npz").labels
    assert again is not None
    assert again.tolist() == labels[:4].tolist()


def test_numbers_with_fractions_are_read_before_the_metric_is_known(tmp_path: Path) -> None:
    labels = np.linspace(-1.0, 1.0, 20).reshape(10, 2)
    np.savez(tmp_path / "set.npz", x=np.ones((10, 3), np.float32), labels=labels)
    found = read_samples(tmp_path / "set.npz", [TensorSpec("x", "float32", ("N", 3))]).labels
    assert found is not None
    assert found.tolist() == labels.tolist()
    assert are_numbers(labels)
    assert not are_numbers(np.append(labels, np.nan))
    assert not are_numbers(np.arange(4))
