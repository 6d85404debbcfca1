from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.data.dataset import CalibrationSet, is_repeated, load_saved

LARGE = np.broadcast_to(np.arange(1000.0, dtype=np.float32), (500, 1000))
SET = CalibrationSet({"x": np.arange(500.0)[:, None], "h": LARGE}, None, {"h": 1}, starts={"h": np.ones((3, 1000))})


def test_an_input_of_one_sample_for_all_takes_no_room_in_its_file(tmp_path: Path) -> None:
    SET.save(tmp_path / "set.npz")
    again = load_saved(tmp_path / "set.npz")

    assert (tmp_path / "set.npz").stat().st_size < LARGE.nbytes / 20
    assert is_repeated(again.inputs["h"])
    assert np.array_equal(again.inputs["h"], LARGE)
    assert np.array_equal(again.starts["h"], SET.starts["h"])


def test_samples_taken_of_it_are_repeated_too_and_no_sequences() -> None:
    taken = SET.take(np.array([3, 1, 2]))

    assert is_repeated(taken.inputs["h"])
    assert np.array_equal(taken.inputs["h"], LARGE[:3])
    assert not taken.starts


def test_a_call_gets_arrays_that_a_runtime_can_read() -> None:
    feeds = SET.take(np.array([3, 1])).feeds()

    assert feeds["h"].shape == (1000, 2)
    assert feeds["h"].flags.c_contiguous


def test_one_sample_and_plain_arrays_are_not_repeated() -> None:
    assert not is_repeated(LARGE[:1])
    assert not is_repeated(np.zeros((4, 2)))
