"""The table of formats of files of samples."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from calibration.data.readers import READERS, Reader, formats_in_words, read_arrays, suffix_of, suffixes
from calibration.errors import InvalidCalibrationSetError

ARRAY = np.arange(6, dtype=np.float32).reshape(3, 2)


def written(folder: Path, suffix: str) -> Path:
    """Return a file of that format that is called by another name, as uploads are."""
    path = folder / "calibration"
    with path.open("wb") as file:
        if suffix == ".npz":
            np.savez(file, x=ARRAY)
        else:
            np.save(file, ARRAY)
    return path


def test_no_file_is_of_two_formats() -> None:
    assert len(set(suffixes())) == len(READERS)
    assert [pair for pair in itertools.permutations(READERS, 2) if pair[0].magic.startswith(pair[1].magic)] == []


@pytest.mark.parametrize("reader", READERS, ids=suffixes())
def test_a_file_is_known_by_its_first_bytes_whatever_its_name(reader: Reader, tmp_path: Path) -> None:
    path = written(tmp_path, reader.suffix)
    assert suffix_of(path) == reader.suffix
    found = read_arrays(path, ["x"])
    assert list(found) == ["x"]
    np.testing.assert_array_equal(found["x"], ARRAY)


@pytest.mark.parametrize("reader", READERS, ids=suffixes())
def test_the_room_that_a_file_takes_is_known_before_it_is_read(reader: Reader, tmp_path: Path) -> None:
    with written(tmp_path, reader.suffix).open("rb") as file:
        assert ARRAY.nbytes <= reader.unpacked_bytes(file, "calibration file") < ARRAY.nbytes + 1000  # and the header


def test_a_file_of_no_format_is_refused_by_the_names_of_all(tmp_path: Path) -> None:
    path = tmp_path / "calibration"
    path.write_bytes(b"id,pixel\n1,0.5\n")
    assert suffix_of(path) in suffixes()
    with pytest.raises(InvalidCalibrationSetError, match=r"is neither \.npz nor \.npy"):
        read_arrays(path, ["x"])


def test_an_array_without_a_name_serves_one_input_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=r"a single array \(.npy\) found, 2 expected: 'x', 'y'"):
        read_arrays(written(tmp_path, ".npy"), ["x", "y"])


def test_formats_are_put_in_words_for_users() -> None:
    assert formats_in_words() == ".npz with one array per model input, or .npy for one input"
