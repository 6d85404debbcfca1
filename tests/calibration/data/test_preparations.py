"""Other preparations of pictures that are worth a try."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.data.preparations import other_preparations

Array = NDArray[np.generic]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4)).astype(np.float32)
MEANS, DEVIATIONS = (np.array(values, np.float32).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
FORMS: dict[str, Array] = {"raw": PIXELS, "unit": PIXELS / 255, "imagenet": (PIXELS / 255 - MEANS) / DEVIATIONS}


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("wanted", FORMS)
def test_each_usual_form_leads_to_each_other(given: str, wanted: str) -> None:
    if given != wanted:
        found = [inputs["x"] for _, inputs in other_preparations({"x": FORMS[given]})]
        assert any(np.allclose(array, FORMS[wanted], rtol=1e-4, atol=1e-3) for array in found)  # float32 there and back


def test_the_order_of_channels_and_of_axes_is_tried() -> None:
    found = [inputs["x"] for _, inputs in other_preparations({"x": PIXELS})]
    assert any(np.array_equal(array, PIXELS[:, ::-1]) for array in found)
    assert any(np.array_equal(array, np.swapaxes(PIXELS, 2, 3)) for array in found)


def test_channels_may_come_last() -> None:
    last = np.moveaxis(PIXELS, 1, 3)
    assert any(np.array_equal(inputs["x"], last[..., ::-1]) for _, inputs in other_preparations({"x": last}))


@pytest.mark.parametrize("inputs", [{"x": np.ones((4, 9))}, {"x": PIXELS.astype(np.uint8)}, {"x": PIXELS, "z": PIXELS}])
def test_what_is_not_one_picture_is_left(inputs: dict[str, Array]) -> None:
    assert list(other_preparations(inputs)) == []
