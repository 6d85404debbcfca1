"""A file of samples that promises more than it holds, or holds more than memory, is the user's to change."""

from __future__ import annotations

import io
import re
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


@pytest.mark.long
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


def zip_with(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_expand_without_a_bound_are_refused(method: int, tmp_path: Path) -> None:
    path = zip_with(tmp_path / "calibration.npz", {"x.npy": member((4, 2), bytes(32))}, method)
    with pytest.raises(InvalidCalibrationSetError, match=f"is compressed by method {method} of .zip, stored or deflate expected"):
        read_samples(path, SPECS)


def test_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "calibration.npz", {"x" * 5000 + ".npy": member((4, 2), bytes(32))})
    with pytest.raises(InvalidCalibrationSetError, match="its name has 5004 characters"):
        read_samples(path, SPECS)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, while the bad file is made
def test_array_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.npz"
    with zipfile.ZipFile(path, "w") as opened:
        for _ in range(2):
            opened.writestr("x.npy", member((4, 2), bytes(32)))
    with pytest.raises(InvalidCalibrationSetError, match="array 'x': is there twice"):
        read_samples(path, SPECS)


def test_too_many_arrays_are_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "calibration.npz", {f"{index}.npy": b"" for index in range(10_001)})
    with pytest.raises(InvalidCalibrationSetError, match="more than 10000 arrays"):
        read_samples(path, SPECS)


def test_size_that_no_compression_reaches_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "calibration.npz", {"x.npy": member((4, 2), bytes(32))}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidCalibrationSetError, match="compressed bytes cannot hold the 2147483648 that it says"):
        read_samples(path, SPECS)


def test_encrypted_array_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "calibration.npz", {"x.npy": member((4, 2), bytes(32))})
    data = bytearray(path.read_bytes())
    for at in (6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidCalibrationSetError, match="array 'x': is encrypted"):
        read_samples(path, SPECS)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("(" * 9000, "its header cannot be read"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}", "gives the shape (True, 2), whole numbers expected"),
        ("__import__('os')", "its header cannot be read"),
    ],
)
def test_header_that_is_none_is_refused(header: str, words: str, tmp_path: Path) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    with pytest.raises(InvalidCalibrationSetError, match=re.escape(words)):
        read_samples(zip_with(tmp_path / "calibration.npz", {"x.npy": content}), SPECS)
