from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec
from service.python.sample_file import write_arrays, write_samples
from tests.model_text import Array
from tests.traced_memory import peak_bytes

PICTURE = (TensorSpec("input", "float32", ("N", 3, 4, 4)),)
TWO = (TensorSpec("ids", "int64", ("N", "T")), TensorSpec("mask", "int64", ("N", "T")))
SAMPLES = np.arange(6 * 48, dtype=np.float32).reshape(6, 3, 4, 4)
CLASSES = np.arange(6)


def written(
    samples: Iterable[object], path: Path, inputs: tuple[TensorSpec, ...] = PICTURE, batched: bool | None = None
) -> dict[str, Array]:
    write_samples(samples, inputs, path / "s.npz", "calibration set", batched=batched)
    with np.load(path / "s.npz", allow_pickle=False) as found:
        return dict(found)


def refused(samples: Iterable[object], path: Path, inputs: tuple[TensorSpec, ...] = PICTURE, batched: bool | None = None) -> str:
    with pytest.raises(InvalidCalibrationSetError) as caught:
        write_samples(samples, inputs, path / "s.npz", "calibration set", batched=batched)
    return f"{caught.value.detail} {caught.value.fix}"


class Tensor:
    """As far as it is used, a tensor of torch: with a gradient, on a GPU."""

    def __init__(self, values: Array, *, steps: tuple[str, ...] = ()) -> None:
        self._values = values
        self._steps = steps

    def __array__(self, dtype: object = None, copy: object = None) -> Array:
        raise TypeError("can't convert a tensor that is not on the CPU")

    def detach(self) -> Tensor:
        return Tensor(self._values, steps=(*self._steps, "detach"))

    def cpu(self) -> Tensor:
        return Tensor(self._values, steps=(*self._steps, "cpu"))

    def numpy(self) -> Array:
        if self._steps != ("detach", "cpu"):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self._values


def test_single_samples_become_one_array(tmp_path: Path) -> None:
    found = written((sample for sample in SAMPLES), tmp_path)
    assert found.keys() == {"input"}
    np.testing.assert_array_equal(found["input"], SAMPLES)
    assert found["input"].dtype == np.float32


def test_batches_are_joined_and_the_last_may_be_smaller(tmp_path: Path) -> None:
    found = written([(SAMPLES[:4], CLASSES[:4]), (SAMPLES[4:], CLASSES[4:])], tmp_path)
    np.testing.assert_array_equal(found["input"], SAMPLES)
    np.testing.assert_array_equal(found["labels"], CLASSES)


def test_single_samples_may_have_labels_that_are_plain_numbers(tmp_path: Path) -> None:
    found = written([(SAMPLES[0], 7), [SAMPLES[1], 3]], tmp_path)
    np.testing.assert_array_equal(found["labels"], [7, 3])


def test_dicts_name_their_arrays(tmp_path: Path) -> None:
    batch = {"ids": np.ones((2, 5), np.int64), "mask": np.zeros((2, 5), np.int64), "labels": np.array([1, 0])}
    found = written([batch, batch], tmp_path, TWO)
    assert {name: array.shape for name, array in found.items()} == {"ids": (4, 5), "mask": (4, 5), "labels": (4,)}


def test_a_tuple_holds_the_inputs_in_the_order_of_the_model_and_then_the_label(tmp_path: Path) -> None:
    ids, mask = np.ones(5, np.int64), np.zeros(5, np.int64)
    assert written([(ids, mask)], tmp_path, TWO).keys() == {"ids", "mask"}
    found = written([(ids, mask, 2)], tmp_path, TWO)
    assert found["ids"].sum() == 5
    assert found["labels"].tolist() == [2]


def test_tensors_are_read_without_their_library(tmp_path: Path) -> None:
    found = written([(Tensor(SAMPLES), Tensor(CLASSES))], tmp_path)
    np.testing.assert_array_equal(found["input"], SAMPLES)


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    digests = []
    for samples in (SAMPLES, list(SAMPLES)):
        write_samples(samples, PICTURE, tmp_path / "s.npz", "calibration set")
        digests.append(hashlib.sha256((tmp_path / "s.npz").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]


def test_200_mb_of_samples_are_never_in_memory_together(tmp_path: Path) -> None:
    inputs = (TensorSpec("input", "float32", ("N", 3, 256, 256)),)

    def samples() -> Iterator[tuple[Array, int]]:
        for index in range(256):
            yield np.full((3, 256, 256), index, np.float32), index

    peak = peak_bytes(lambda: write_samples(samples(), inputs, tmp_path / "s.npz", "calibration set"))
    assert (tmp_path / "s.npz").stat().st_size > 200e6
    assert peak < 10e6  # a few samples of 0.8 MB, and what is copied at once


def test_whole_arrays_are_written_as_they_are(tmp_path: Path) -> None:
    write_arrays({"input": SAMPLES, "labels": Tensor(CLASSES), "rate": 16000}, tmp_path / "a.npz", "calibration set")
    with np.load(tmp_path / "a.npz") as found:
        assert {name: found[name].shape for name in found.files} == {"input": (6, 3, 4, 4), "labels": (6,), "rate": ()}


def test_what_cannot_be_told_may_be_said(tmp_path: Path) -> None:
    unknown = (TensorSpec("x", "float32", ()),)
    assert "batched=True" in refused([SAMPLES], tmp_path, unknown)
    assert written([SAMPLES], tmp_path, unknown, batched=True)["x"].shape == (6, 3, 4, 4)
    assert written([SAMPLES], tmp_path, unknown, batched=False)["x"].shape == (1, 6, 3, 4, 4)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "no sample found"),
        ([SAMPLES[0], SAMPLES[1].astype(np.float64)], "item 1, array 'input': float64"),
        ([SAMPLES[0], SAMPLES[1][:, :2]], "(3, 2, 4) a sample found, float32 of shape (3, 4, 4) expected"),
        ([SAMPLES[0], SAMPLES[:2]], "item 1"),
        ([(SAMPLES[0], 1), SAMPLES[1]], "the arrays 'input' found, 'input', 'labels' expected"),
        ([(SAMPLES, CLASSES[:3])], "batches of different sizes"),
        ([(SAMPLES, 3)], "a single number found, a batch expected"),
        ([(SAMPLES[0], 1, 2)], "3 arrays found, 1 expected ('input')"),
        ([SAMPLES[0, 0, 0]], "cannot be told"),
        (["a name"], "str found"),
        ([{"input": np.array(["a", "b"])}], "text found, numbers expected Give numbers: of labels the index"),
        ([{"input": SAMPLES[0], "path": "a.jpg"}], "array 'path': the model has no such input; its inputs are 'input' Leave it out"),
        ([{"pixel_values": SAMPLES[0], "labels": 1}], "array 'pixel_values': the model has no such input"),
        ([{"input": SAMPLES[0], "label": 1}], "array 'label': the model has no such input; its inputs are 'input' Call it 'labels'."),
        ([{"input": [[1.0], [2.0, 3.0]]}], "no array of numbers"),
    ],
)
def test_what_does_not_fit_is_named(samples: list[object], words: str, tmp_path: Path) -> None:
    assert words in refused(samples, tmp_path)
    assert not (tmp_path / "s.npz").exists()


def test_arrays_without_names_are_refused_where_the_inputs_are_not_known(tmp_path: Path) -> None:
    assert "without names" in refused([SAMPLES[0]], tmp_path, ())


def test_an_error_of_the_iterable_itself_comes_through(tmp_path: Path) -> None:
    def samples() -> Iterator[Array]:
        yield SAMPLES[0]
        raise KeyError("of the caller's own")

    with pytest.raises(KeyError, match="caller's own"):
        write_samples(samples(), PICTURE, tmp_path / "s.npz", "calibration set")
    assert list(tmp_path.iterdir()) == []
