"""The order of classes that came as names."""

from __future__ import annotations

import pytest

from calibration.data.formats.named_labels.named_classes import check_classes, classes_note
from calibration.data.formats.wanted import Found
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

TEN = [TensorSpec("logits", "float32", ("N", 10))]
CATS = Found({}, ("cat", "dog"))


def test_fewer_names_than_the_model_has_classes_are_refused() -> None:
    with pytest.raises(InvalidCalibrationSetError) as raised:
        check_classes(CATS, None, TEN, "calibration file")
    assert "labels are names of 2 classes ('cat' is 0, 'dog' is 1), and the model gives 10 numbers" in raised.value.detail
    assert "preprocess.classes" in raised.value.fix


def test_other_names_in_the_two_files_are_refused() -> None:
    with pytest.raises(InvalidCalibrationSetError, match=r"validation file: other classes found .* than in the calibration file"):
        check_classes(Found({}, ("cat", "owl")), CATS, [TensorSpec("y", "float32", ("N", 2))], "validation file")


@pytest.mark.parametrize("size", [2, 1, "C", None])  # one number tells two classes apart; an open size tells nothing
def test_as_many_names_as_classes_are_taken(size: int | str | None) -> None:
    check_classes(CATS, CATS, [TensorSpec("y", "float32", ("N", size))], "validation file")
    assert classes_note(CATS) == ("labels are names of 2 classes, numbered in sorted order: 'cat' is 0, 'dog' is 1",)


def test_stated_classes_are_believed() -> None:
    stated = Found({}, ("cat", "dog"), are_classes_stated=True)
    check_classes(stated, None, TEN, "calibration file")
    assert classes_note(stated) == ()
