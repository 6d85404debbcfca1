"""Folders of samples become the .zip that a job takes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from calibration.data.given.packed_folder import pack_folder
from calibration.errors import InvalidCalibrationSetError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_samples_are_packed_and_all_else_is_left(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", "cat/1.jpg", "cat/1.JPG", "dog/2.png", "labels.csv", "classes.txt", "notes.md", "dog/video.mp4")
    pack_folder(folder, tmp_path / "a.zip", "calibration set")
    assert names_in(tmp_path / "a.zip") == ["cat/1.JPG", "cat/1.jpg", "classes.txt", "dog/2.png", "labels.csv"]


def test_equal_folders_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack_folder(made(tmp_path / name, "x/1.png", "y/2.png"), tmp_path / f"{name}.zip", "calibration set")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_folder_of_arrays_is_an_npz(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "x.npy", np.arange(3))
    pack_folder(tmp_path / "a", tmp_path / "a.npz", "calibration set")
    with np.load(tmp_path / "a.npz") as found:
        assert found["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "detail", "fix"),
    [
        (["calibration.npz"], "is a folder, and holds 'calibration.npz'", "calibration.npz"),
        (["a.txt"], "is a folder without samples: it holds 'a.txt'", "Give a folder of pictures"),
        (["labels.csv"], "is a folder without samples", "Give a folder of pictures"),
    ],
)
def test_a_folder_without_samples_is_refused(tmp_path: Path, names: list[str], detail: str, fix: str) -> None:
    folder = made(tmp_path / "a", *names)
    with pytest.raises(InvalidCalibrationSetError) as raised:
        pack_folder(folder, tmp_path / "a.zip", "calibration set")
    assert detail in raised.value.detail
    assert fix in raised.value.fix
