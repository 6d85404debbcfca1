from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec
from calibration.sequences.caches import Caches, Follower, cached_steps, found_caches, grown_axis

IDS = TensorSpec("input_ids", "int64", ("batch_size", "sequence_length"))
MASK = TensorSpec("attention_mask", "int64", ("batch_size", "past_sequence_length + 1"))
PLACES = TensorSpec("position_ids", "int64", ("batch_size", "sequence_length"))
STATES = {"present": "past"}


def cache(name: str, *shape: int | str | None) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def caches(taken: TensorSpec, output: TensorSpec, *others: TensorSpec, given: tuple[str, ...] = ("input_ids",)) -> Caches:
    return found_caches(STATES, [IDS, *others, taken], [output], given)


def test_a_cache_grows_on_the_open_axis_with_two_names() -> None:
    found = caches(cache("past", "batch_size", 4, "past_sequence_length", 16), cache("present", "batch_size", 4, "total", 16), MASK, PLACES)
    assert found == Caches({"past": 2}, {"attention_mask": Follower.MASK, "position_ids": Follower.POSITIONS})
    unnamed = caches(cache("past", "batch_size", 4, "past_sequence_length", 16), cache("present", None, 4, None, 16))
    assert unnamed.axes == {"past": 2}


@pytest.mark.parametrize(
    ("taken", "output"),
    [
        (("batch_size", 4, 32, 16), ("batch_size", 4, 32, 16)),
        (("batch_size", 4, "past", 16), ("batch_size", 4, "past", 16)),
        (("N", 32), ("M", 32)),  # called like a batch
        (("batch_size", 32), ("other", 32)),  # counts samples in another input
        ((2, None, 32), (None, None, None)),
        (("batch_size", "past", "rows"), ("batch_size", "total", "lines")),  # two: it cannot be told
    ],
)
def test_a_state_of_one_size_does_not_grow(taken: tuple[int | str | None, ...], output: tuple[int | str | None, ...]) -> None:
    assert caches(cache("past", *taken), cache("present", *output), MASK) == Caches()


def test_what_the_samples_hold_is_not_filled_in_and_a_mask_they_may_not_hold() -> None:
    grown = cache("past", "batch_size", "past_sequence_length"), cache("present", "batch_size", "total")
    assert caches(*grown, PLACES, given=("input_ids", "position_ids")).followers == {}
    with pytest.raises(InvalidCalibrationSetError, match=r"array 'attention_mask'.*left out expected"):
        caches(*grown, MASK, given=("input_ids", "attention_mask"))


def test_a_mask_is_as_long_as_the_cache_with_the_step_and_positions_begin_at_0() -> None:
    assert Follower.MASK.feed(2, 3, np.dtype(np.float32)).tolist() == [[1.0] * 4] * 2
    assert Follower.POSITIONS.feed(2, 3, np.dtype(np.int64)).tolist() == [[3], [3]]


def test_half_of_the_median_sequence_is_cached() -> None:
    assert cached_steps(np.array([10, 100, 30])) == 15
    assert cached_steps(np.array([1])) == 1


@pytest.mark.parametrize(("axis", "samples", "place"), [(2, 0, 2), (2, None, 3), (0, 1, 1), (2, 1, 2)])
def test_where_an_axis_is_with_samples_first(axis: int, samples: int | None, place: int) -> None:
    assert grown_axis(axis, samples) == place
