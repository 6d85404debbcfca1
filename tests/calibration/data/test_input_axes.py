"""Which axis may count samples, from declared sizes and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.data.dataset import read_samples
from calibration.data.input_axes import is_batch_name, possible_axes
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec


def likeliest(**inputs: tuple[tuple[int | str | None, ...], tuple[int, ...]]) -> dict[str, int | None] | None:
    specs = [TensorSpec(name, "float32", dims) for name, (dims, _) in inputs.items()]
    guesses = possible_axes(specs, {name: shape for name, (_, shape) in inputs.items()})
    return guesses[0] if guesses else None


@pytest.mark.parametrize(
    ("dims", "shape", "axis"),
    [
        (("N", 3, 8, 8), (9, 3, 8, 8), 0),
        ((None, None, None), (9, 3, 8), 0),
        (("frames", "batch", 6), (9, 8, 6), 1),
        (("T", "N", 6), (9, 8, 6), 1),
        (("N", "T"), (9, 8), 0),
        ((2, "batch", 5), (9, 2, 5), 1),
        ((2, None, 5), (9, 2, 5), 1),
        ((2, 1, 5), (9, 2, 5), 1),
        ((2, 1, 5), (9, 2, 1, 5), 1),
        ((2, "batch", 5), (9, 2, 1, 5), 1),
        ((1, "T", 5), (9, 1, 5), 0),
        ((5, 6), (9, 5, 6), None),
        (("H", "W", 3), (9, 8, 8, 3), None),
        ((1, 3, 8, 8), (9, 1, 3, 8, 8), 0),
    ],
)
def test_the_likeliest_axis_of_a_lone_input(dims: tuple[int | str | None, ...], shape: tuple[int, ...], axis: int | None) -> None:
    assert likeliest(x=(dims, shape)) == {"x": axis}


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("N", 3, 8, 8), (9, 8, 8, 3)),  # channels last
        (("N", 3, "H", "W"), (9, 8, 8, 3)),
        (("N", 1, "H", "W"), (9, 8, 8, 1)),
        ((1, 3, "H", "W"), (9, 8, 8, 3)),
        (("N", 3, 8, 8), (9, 3, 8)),
        (("N", 3, 8, 8), (9, 5, 3, 8, 8)),
        ((2, "batch", 5), (9, 3, 5)),
    ],
)
def test_arrays_of_another_layout_fit_no_axis(dims: tuple[int | str | None, ...], shape: tuple[int, ...]) -> None:
    assert likeliest(x=(dims, shape)) is None


def test_inputs_tell_of_each_other() -> None:
    assert likeliest(x=(("bound", 6), (9, 6)), h=(("layers", "bound", 5), (9, 2, 5))) == {"x": 0, "h": 1}
    assert likeliest(x=((4, 6), (9, 6)), h=((2, 4, 5), (9, 2, 5))) == {"x": 0, "h": 1}
    assert likeliest(x=((1, 6), (9, 6)), h=((2, 1, 5), (9, 2, 5))) == {"x": 0, "h": 1}


def test_rarer_forms_come_later() -> None:
    spec = TensorSpec("x", "float32", (None, None, 6))
    assert possible_axes([spec], {"x": (9, 8, 6)}) == ({"x": 0}, {"x": 1})


@pytest.mark.parametrize(("name", "is_batch"), [("N", True), ("batch_size", True), ("dynamic_batch", True), ("T", False), ("seq", False)])
def test_names_of_batches(name: str, is_batch: bool) -> None:
    assert is_batch_name(name) is is_batch


def test_states_are_read_in_both_forms(tmp_path: Path) -> None:
    specs = [TensorSpec("x", "float32", ("N", 6)), TensorSpec("h", "float32", (2, "N", 5))]
    x, h = np.ones((9, 6), np.float32), np.arange(90, dtype=np.float32).reshape(9, 2, 5)
    for name, state in (("a", h), ("b", h[:, :, None])):
        np.savez(tmp_path / f"{name}.npz", x=x, h=state)
        found = read_samples(tmp_path / f"{name}.npz", specs)
        assert found.axes == {"h": 1}
        np.testing.assert_array_equal(found.inputs["h"], h)
        assert found.feeds(0, 4)["h"].shape == (2, 4, 5)


def test_a_state_of_another_size_is_refused(tmp_path: Path) -> None:
    specs = [TensorSpec("x", "float32", ("N", 6)), TensorSpec("h", "float32", (2, "N", 5))]
    np.savez(tmp_path / "a.npz", x=np.ones((9, 6), np.float32), h=np.ones((9, 2, 4), np.float32))
    with pytest.raises(InvalidCalibrationSetError, match="array 'h': size 4 found on axis 2"):
        read_samples(tmp_path / "a.npz", specs)
