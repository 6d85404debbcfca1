"""Arrays of bytes for inputs of floats."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.data.formats.byte_arrays import with_floats
from calibration.data.formats.preprocess import Colors, Layout, Preprocess
from calibration.data.formats.wanted import Wanted
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 4, 6, 3), dtype=np.uint8)  # more than are prepared at once
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
EXPECTED = (PIXELS / 255.0 - np.array(MEAN)) / np.array(STD)


def wanted(*shape: int | str | None, preprocess: Preprocess, dtype: str = "float32") -> Wanted:
    return Wanted((TensorSpec("x", dtype, shape),), preprocess)


@pytest.mark.parametrize("is_given_last", [True, False])
@pytest.mark.parametrize("is_wanted_last", [True, False])
def test_bytes_of_either_layout_become_the_floats_of_the_models(is_given_last: bool, is_wanted_last: bool) -> None:
    given = PIXELS if is_given_last else PIXELS.transpose(0, 3, 1, 2)
    shape = ("N", 4, 6, 3) if is_wanted_last else ("N", 3, 4, 6)
    found = with_floats({"x": given}, wanted(*shape, preprocess=Preprocess(mean=MEAN, std=STD)))["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found.astype(np.float64), EXPECTED if is_wanted_last else EXPECTED.transpose(0, 3, 1, 2), atol=1e-5
    )  # float32


def test_open_sizes_leave_the_layout_of_the_array() -> None:
    found = with_floats({"x": PIXELS}, wanted("N", None, None, None, preprocess=Preprocess(scale=1.0)))["x"]
    np.testing.assert_array_equal(found, PIXELS)


def test_colors_are_turned_for_a_model_that_wants_them_so() -> None:
    preprocess = Preprocess(scale=1.0, colors=Colors.BGR, layout=Layout.NHWC)
    np.testing.assert_array_equal(with_floats({"x": PIXELS}, wanted("N", 4, 6, 3, preprocess=preprocess))["x"], PIXELS[..., ::-1])


def test_bytes_of_other_ranks_are_scaled() -> None:
    found = with_floats({"x": PIXELS[:, :, 0, 0]}, wanted("N", 4, preprocess=Preprocess(scale=0.5)))["x"]
    np.testing.assert_array_equal(found, PIXELS[:, :, 0, 0] * 0.5)


def test_bytes_without_a_statement_are_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidCalibrationSetError) as raised:
        with_floats({"x": PIXELS}, wanted("N", 4, 6, 3, preprocess=Preprocess()))
    assert raised.value.detail == "array 'x': uint8 found, float32 expected, and nothing states how the bytes become such values"
    assert '"preprocess": {"scale": 0.00392156862745098}' in raised.value.fix


@pytest.mark.parametrize(("array", "dtype"), [(PIXELS, "uint8"), (PIXELS.astype(np.float32), "float32"), (PIXELS, "int64")])
def test_all_else_stays_as_it_is(array: np.ndarray, dtype: str) -> None:
    assert with_floats({"x": array}, wanted("N", 4, 6, 3, preprocess=Preprocess(scale=0.5), dtype=dtype))["x"] is array
