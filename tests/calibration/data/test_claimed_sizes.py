"""A file of samples that promises more than it holds, or holds more than memory, is the user's to change."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from calibration.data.claimed_sizes import claimed_by_archive
from calibration.data.dataset import read_samples
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

SPECS = (TensorSpec("x", "float32", (None, 2)),)


def member(shape: tuple[int, ...], data: bytes) -> bytes:
    """Return an .npy of float32 whose header says ``shape``, whatever the data is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def archive(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        opened.writestr(name, content)
    return path


def test_an_array_that_promises_more_than_it_holds_is_refused_before_room_is_made(tmp_path: Path) -> None:
    path = archive(tmp_path / "calibration.npz", "x.npy", member((2**40, 2), bytes(80)))
    with pytest.raises(
        InvalidCalibrationSetError, match=r"array 'x': is damaged or truncated: its header promises 8796093022208 bytes .* 80 are there"
    ):
        read_samples(path, SPECS)


def test_so_is_a_lone_array(tmp_path: Path) -> None:
    path = tmp_path / "calibration.npy"
    path.write_bytes(member((2**40, 2), bytes(80)))
    with pytest.raises(InvalidCalibrationSetError, match=r"calibration file 'calibration.npy': is damaged or truncated"):
        read_samples(path, SPECS)


def test_of_a_sound_file_the_unpacked_size_is_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "calibration.npz", "x.npy", member((10, 2), bytes(80)))
    with path.open("rb") as file:
        assert claimed_by_archive(file, "calibration file") == len(member((10, 2), bytes(80)))
    assert read_samples(path, SPECS).samples == 10


def test_a_small_file_that_unpacks_to_more_than_the_memory_is_an_error_of_the_input(tmp_path: Path) -> None:
    size_bytes = 2**29
    path = archive(tmp_path / "calibration.npz", "x.npy", member((size_bytes // 8, 2), bytes(size_bytes)))
    assert path.stat().st_size < 2**23
    limited = f"""
import resource
from calibration.data.dataset import read_samples
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {size_bytes // 2}, resource.RLIM_INFINITY))
try:
    read_samples(__import__("pathlib").Path({str(path)!r}), (TensorSpec("x", "float32", (None, 2)),))
except InvalidCalibrationSetError as error:
    print(error.detail)
"""
    said = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=True).stdout
    assert f"takes {len(member((size_bytes // 8, 2), bytes(size_bytes)))} bytes when it is unpacked, more than the memory" in said
