"""Saved sets of many bytes stay in their file until samples of them are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.data.dataset import MAPPED_BYTES, CalibrationSet, SampleShare, load_saved
from calibration.process.mapped_arrays import MappedArrays
from tests.traced_memory import peak_bytes


@pytest.fixture
def large(tmp_path: Path) -> tuple[CalibrationSet, CalibrationSet]:
    """A set as it was before it was saved, of so many bytes that its samples stay in the file, and as it was loaded."""
    pictures = np.arange(8 * MAPPED_BYTES // 4 // 8, dtype=np.float32).reshape(8, -1)
    before = CalibrationSet({"x": pictures, "odd": np.arange(24, dtype=np.int8).reshape(8, 3)}, np.arange(8), {"x": 0, "odd": 1})
    before.save(tmp_path / "saved.npz")
    return before, load_saved(tmp_path / "saved.npz")


def test_the_samples_of_a_large_set_stay_in_its_file_and_are_the_same(large: tuple[CalibrationSet, CalibrationSet]) -> None:
    before, found = large

    assert found.source is not None
    assert not any(array.flags.owndata for array in found.inputs.values())
    assert found.axes == before.axes
    np.testing.assert_array_equal(found.labels, before.labels)
    for name, array in before.inputs.items():
        np.testing.assert_array_equal(found.inputs[name], array)


@pytest.mark.parametrize("how", ["take", "feeds"])
def test_what_is_taken_of_a_large_set_is_a_copy_and_the_file_is_let_go_of(
    how: str, large: tuple[CalibrationSet, CalibrationSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found = large
    let_go: list[MappedArrays] = []
    monkeypatch.setattr(MappedArrays, "let_go", lambda mapped: let_go.append(mapped))

    if how == "take":
        chosen = np.array([5, 2])
        taken, expected = dict(found.take(chosen).inputs), dict(before.take(chosen).inputs)
    else:
        taken, expected = found.feeds(2, 4), before.feeds(2, 4)

    assert let_go == [found.source]
    for name, array in expected.items():
        np.testing.assert_array_equal(taken[name], array)
        assert not np.shares_memory(taken[name], found.inputs[name])
        assert taken[name].flags.aligned
        assert taken[name].flags.c_contiguous


def test_a_small_set_is_read_whole(tmp_path: Path) -> None:
    CalibrationSet({"x": np.zeros((8, 4))}, None).save(tmp_path / "saved.npz")

    assert load_saved(tmp_path / "saved.npz").source is None


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_share_gives_what_taking_its_samples_gives(size: int, large: tuple[CalibrationSet, CalibrationSet]) -> None:
    before, found = large
    indices = np.array([6, 1, 3, 3, 0])

    for one in (before, found):
        share, taken = SampleShare(one, indices), before.take(indices)
        assert share.samples == taken.samples
        for given, expected in zip(share.batches(size), taken.batches(size), strict=True):
            assert given.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(given[name], array)
        np.testing.assert_array_equal(share.take(np.array([1, 0])).labels, [1, 6])


def test_a_share_of_a_large_set_has_a_call_in_memory_at_a_time(large: tuple[CalibrationSet, CalibrationSet]) -> None:
    before, found = large
    sample_bytes = before.inputs["x"][:1].nbytes

    def walk() -> None:
        for feeds in SampleShare(found, np.arange(8)).batches(1):
            assert len(feeds["x"]) == 1
            del feeds

    assert sample_bytes < peak_bytes(walk) < 2.5 * sample_bytes  # a call, and a copy of it in the order that the runtime reads
