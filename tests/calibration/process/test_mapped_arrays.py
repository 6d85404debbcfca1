from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.process.mapped_arrays import MappedArrays

PAGES = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see which pages of a file are in memory")


def resident_bytes(path: Path) -> int:
    """Return how much of the file this process has in its memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    begin = next(index for index, line in enumerate(lines) if line.endswith(str(path)))
    return 1024 * int(next(line for line in lines[begin:] if line.startswith("Rss:")).split()[1])


def test_arrays_are_those_of_the_file(tmp_path: Path) -> None:
    given: dict[str, np.ndarray] = {
        "floats": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "one": np.asarray(7),
        "none": np.zeros((0, 3), dtype=np.int8),
        "words": np.asarray(["a", "bcd"]),
    }
    np.savez(tmp_path / "given.npz", allow_pickle=False, **given)

    found = MappedArrays(tmp_path / "given.npz").arrays

    assert found.keys() == given.keys()
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("array", [np.zeros(4), np.asarray(["a", None], dtype=object)], ids=["compressed", "objects"])
def test_what_cannot_be_mapped_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "given.npz"
    if array.dtype.hasobject:
        np.savez(path, array=array, allow_pickle=True)
    else:
        np.savez_compressed(path, array=array)

    with pytest.raises(ValueError, match="expected"):
        MappedArrays(path)


@PAGES
def test_what_was_read_is_not_in_memory_once_it_is_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "given.npz"
    np.savez(path, array=np.ones((1 << 20,), dtype=np.float64))

    mapped = MappedArrays(path)
    assert mapped.arrays["array"].sum() == 1 << 20
    before = resident_bytes(path)
    mapped.let_go()

    assert before >= 8 << 20
    assert resident_bytes(path) == 0
    assert mapped.arrays["array"].sum() == 1 << 20
