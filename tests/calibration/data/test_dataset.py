from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.data.dataset import MIN_SAMPLES, CalibrationSet, load_saved, read_samples, split_held_out
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 1, 4, 4))
IDS = TensorSpec("ids", "int64", ("N", "T"))
MASK = TensorSpec("mask", "int64", ("N", "T"))


def images(samples: int = 10, dtype: str = "float32") -> np.ndarray:
    return np.arange(samples * 16).reshape(samples, 1, 4, 4).astype(dtype)


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "data.npz", allow_pickle=True, **arrays)
    return path / "data.npz"


def refusal(path: Path, *specs: TensorSpec) -> InvalidCalibrationSetError:
    with pytest.raises(InvalidCalibrationSetError) as caught:
        read_samples(path, specs or (IMAGE,))
    return caught.value


def test_npz_gives_inputs_and_labels(tmp_path: Path) -> None:
    found = read_samples(write(tmp_path, image=images(), labels=np.arange(10, dtype=np.int32)), [IMAGE])

    np.testing.assert_array_equal(found.inputs["image"], images())
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == list(range(10))
    assert found.samples == 10


def test_npy_serves_a_model_with_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", images())

    found = read_samples(tmp_path / "data.npy", [IMAGE])

    np.testing.assert_array_equal(found.inputs["image"], images())
    assert found.labels is None


def test_fixed_batch_of_the_model_does_not_limit_the_samples(tmp_path: Path) -> None:
    assert read_samples(write(tmp_path, image=images(10)), [TensorSpec("image", "float32", (1, 1, 4, 4))]).samples == 10


def test_input_called_labels_is_an_input(tmp_path: Path) -> None:
    specs = [IMAGE, TensorSpec("labels", "float32", ("N", 2))]
    labels = np.arange(10)

    found = read_samples(write(tmp_path, image=images(), labels=np.ones((10, 2), np.float32), __labels__=labels), specs)

    assert found.inputs["labels"].shape == (10, 2)
    assert found.labels is not None
    assert found.labels.tolist() == labels.tolist()


def test_input_with_odd_characters_is_found(tmp_path: Path) -> None:
    found = read_samples(write(tmp_path, **{"in put/1:0": images()}), [TensorSpec("in put/1:0", "float32", ("N", 1, 4, 4))])

    assert found.samples == 10


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("float64", "float32"), ("float64", "float16"), ("float16", "float32"), ("int32", "int64"), ("uint8", "int64"), (">f4", "float32")],
)
def test_number_types_that_keep_the_values_are_cast(tmp_path: Path, found: str, wanted: str) -> None:
    samples = read_samples(write(tmp_path, image=images(10, found)), [TensorSpec("image", wanted, ("N", 1, 4, 4))])

    assert samples.inputs["image"].dtype == np.dtype(wanted)
    np.testing.assert_array_equal(samples.inputs["image"], images())


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("float32", "int64"),
        ("int64", "float32"),
        ("int64", "bool"),
        ("complex64", "float32"),
        ("U4", "int64"),
        ("bool", "int64"),
    ],
)
def test_number_type_that_means_something_else_is_refused(tmp_path: Path, found: str, wanted: str) -> None:
    error = refusal(write(tmp_path, image=images(10, found)), TensorSpec("image", wanted, ("N", 1, 4, 4)))

    assert error.detail == f"array 'image': {np.dtype(found).name} found, {wanted} expected"
    assert error.fix == f"Convert the array the way the model's input is made, e.g. array.astype('{wanted}')."


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images(10, "float64") * 1000), TensorSpec("image", "float16", ("N", 1, 4, 4)))

    assert error.detail == "array 'image': float64 values from 0.0 to 159000.0 found, which float16 cannot hold"


def test_a_mask_that_is_left_out_may_be_made(tmp_path: Path) -> None:
    specs = [TensorSpec(name, "int64", ("N", 4)) for name in ("input_ids", "attention_mask")]
    error = refusal(write(tmp_path, input_ids=np.ones((10, 4), np.int64)), *specs)
    assert error.detail.startswith("array 'attention_mask': missing")
    assert '"tokens": {"pad": 0}' in error.fix


def test_whole_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, ids=np.full((8, 3), -1)), TensorSpec("ids", "uint8", ("N", "T")))

    assert error.detail == "array 'ids': int64 values from -1 to -1 found, which uint8 cannot hold"


def test_misspelt_name_is_answered_with_the_right_one(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, imag=images()))

    assert error.detail == "array 'image': missing; arrays found: 'imag'; model inputs: 'image'"
    assert error.fix == "Rename array 'imag' to 'image'."


def test_missing_array_is_named(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, ids=np.ones((8, 3), np.int64)), IDS, MASK)

    assert error.detail == "array 'mask': missing; arrays found: 'ids'; model inputs: 'ids', 'mask'"
    assert error.fix == "Add an array called 'mask'."


def test_array_that_is_no_input_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images(), label=np.arange(10)))

    assert error.detail == "array 'label': no such model input; model inputs: 'image'"
    assert error.fix == "Did you mean 'labels'? Remove the array; only 'labels' may be added to the inputs."


def test_wrong_rank_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images()[:, 0]))

    assert error.detail == "array 'image': 3 axes found (shape (10, 4, 4)), 4 expected: (samples, 1, 4, 4)"
    assert error.fix == "Stack the samples on the first axis; every sample has the shape of the model input without its batch axis."


def test_wrong_size_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images().reshape(10, 4, 4, 1)))

    assert error.detail == "array 'image': size 4 found on axis 1 (shape (10, 4, 4, 1)), 1 expected: (samples, 1, 4, 4)"


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "+inf"), (-np.inf, "-inf")])
def test_nan_and_infinity_are_read_and_told(tmp_path: Path, value: float, word: str) -> None:
    array = images()
    array[6, 0, 1, 2] = value

    found = read_samples(write(tmp_path, image=array.astype(np.float64)), [IMAGE])

    np.testing.assert_array_equal(found.inputs["image"], array)
    assert found.specials == (f"array 'image' holds {word} in 1 of 10 samples, first in sample 6",)
    assert read_samples(write(tmp_path, image=images()), [IMAGE]).specials == ()


def test_an_axis_of_no_elements_is_read(tmp_path: Path) -> None:
    spec = TensorSpec("past", "float32", ("N", "T", 4))
    past = np.zeros((10, 0, 4))
    assert read_samples(write(tmp_path, past=past), [spec]).inputs["past"].shape == past.shape


def test_empty_set_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images(0)))

    assert error.detail == "array 'image': is empty (shape (0, 1, 4, 4))"
    assert error.fix == "Give at least 8 samples."


def test_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, ids=np.ones((9, 3), np.int64), mask=np.ones((8, 3), np.int64)), IDS, MASK)

    assert error.detail == "samples: different numbers of them found: 'ids' 9, 'mask' 8; one number expected"


def test_axes_of_one_name_must_agree(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, ids=np.ones((8, 3), np.int64), mask=np.ones((8, 4), np.int64)), IDS, MASK)

    assert error.detail == "array 'mask': size 4 found on axis 1, 3 expected: the model calls it 'T', as axis 1 of 'ids'"


def test_labels_of_wrong_length_are_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images(), labels=np.arange(9)))

    assert error.detail == "array 'labels': shape (9,) found, (10,) expected: one class index per sample"
    assert error.fix.startswith(
        "Give exactly one label per sample, in the same order (no one-hot rows); (samples, tokens) where every token"
    )
    assert error.fix.endswith("name the metric that compares with them (accuracy.metric: mean_iou, average_precision).")


def test_labels_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images(), labels=np.arange(10.0)))

    assert error.detail == "array 'labels': float64 found, whole numbers expected (class indices)"


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, image=images(), labels=np.arange(10) - 1))

    assert error.detail == "array 'labels': -1 found, class indices from 0 expected"


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_array_in_an_npz_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    error = refusal(write(tmp_path, image=np.array([Bomb(trace)] * 10, dtype=object)))

    assert error.detail == "array 'image': holds pickled Python objects, which are never loaded"
    assert error.fix == "Convert it to a plain number type, e.g. array.astype('float32'), and save it again."
    assert not trace.exists()


def test_pickled_array_in_an_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.array([{}] * 10, dtype=object), allow_pickle=True)

    assert refusal(tmp_path / "data.npy").detail == "calibration file 'data.npy': holds a pickled object array, which is never loaded"


def test_plain_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "data.npz").write_bytes(pickle.dumps(Bomb(trace)))

    detail = "calibration file 'data.npz': is a Python pickle (as .pkl, and .pt or .pth of old PyTorch, are), which is never loaded"
    assert refusal(tmp_path / "data.npz").detail == detail
    assert not trace.exists()


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "calibration file 'data.npz': is empty"),
        (b"a,b,c\n1,2,3\n", "calibration file 'data.npz': is a table of text (.csv) without the pictures that it names"),
        (b"PK\x03\x04 and no more", "calibration file 'data.npz': is damaged or truncated: File is not a zip file"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, detail: str) -> None:
    (tmp_path / "data.npz").write_bytes(data)

    assert refusal(tmp_path / "data.npz").detail == detail


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", images())
    for path in (write(tmp_path, image=images()), tmp_path / "data.npy"):
        path.write_bytes(path.read_bytes()[:-40])

        assert "is damaged or truncated" in refusal(path).detail


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.npz").detail == "calibration file 'none.npz': cannot be read: No such file or directory"


def test_single_array_for_several_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", images())

    error = refusal(tmp_path / "data.npy", IDS, MASK)

    assert error.detail == "calibration file 'data.npy': a single array (.npy) found, 2 expected: 'ids', 'mask'"


def test_saved_set_loads_as_it_was(tmp_path: Path) -> None:
    odd = {name: images() for name in ("file", "labels", "in put/1:0", "allow_pickle", "x.npy")}
    CalibrationSet(odd, np.arange(10)).save(tmp_path / "set.npz")

    again = load_saved(tmp_path / "set.npz")

    assert list(again.inputs) == list(odd)
    assert all(np.array_equal(again.inputs[name], images()) for name in odd)
    assert again.labels is not None
    assert again.labels.tolist() == list(range(10))


def test_saved_set_without_labels_has_none(tmp_path: Path) -> None:
    CalibrationSet({"labels": images()}, None).save(tmp_path / "set.npz")

    assert load_saved(tmp_path / "set.npz").labels is None


def test_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        CalibrationSet({"x": images()}, None).save(tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(samples=st.integers(1, 40), size=st.integers(1, 12))
def test_batches_hold_every_sample_once_in_order(samples: int, size: int) -> None:
    batches = list(CalibrationSet({"x": np.arange(samples)}, None).batches(size))

    assert np.concatenate([batch["x"] for batch in batches]).tolist() == list(range(samples))
    assert all(len(batch["x"]) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]["x"]) <= size


def test_take_keeps_inputs_and_labels_together() -> None:
    taken = CalibrationSet({"x": np.arange(10) * 2}, np.arange(10)).take(np.array([7, 1]))

    assert taken.inputs["x"].tolist() == [14, 2]
    assert taken.labels is not None
    assert taken.labels.tolist() == [7, 1]


@given(samples=st.integers(MIN_SAMPLES, 500), seed=st.integers(0, 2**32), fraction=st.floats(0.01, 0.99))
def test_split_is_a_sorted_partition(samples: int, seed: int, fraction: float) -> None:
    rest, held_out = split_held_out(samples, seed, fraction)

    assert sorted([*rest, *held_out]) == list(range(samples))
    assert np.all(np.diff(rest) > 0)
    assert np.all(np.diff(held_out) > 0)
    assert len(rest) > 0
    assert abs(len(held_out) - fraction * samples) <= 1


def test_split_depends_on_the_seed_alone() -> None:
    assert np.array_equal(split_held_out(100, 3)[1], split_held_out(100, 3)[1])
    assert not np.array_equal(split_held_out(100, 3)[1], split_held_out(100, 4)[1])
    assert len(split_held_out(100, 3)[1]) == 40


@pytest.mark.parametrize(("samples", "text"), [(7, "7 samples"), (1, "1 sample")])
def test_fewer_than_eight_samples_are_refused(samples: int, text: str) -> None:
    with pytest.raises(InvalidCalibrationSetError) as caught:
        split_held_out(samples, 0)

    assert caught.value.detail == f"calibration set: {text} found, at least 8 expected"
    assert caught.value.fix == "Give more samples (a few hundred are usual), drawn like the data that the model will see."
