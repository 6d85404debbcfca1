"""The table of formats of files of samples."""

from __future__ import annotations

import base64
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from PIL import Image

from calibration.data.formats.preprocess import Preprocess, TokenOptions
from calibration.data.formats.wanted import Wanted
from calibration.data.readers import READERS, formats_in_words, read_arrays, suffix_of, suffixes
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

ARRAY = np.arange(6, dtype=np.float32).reshape(3, 2)
WANTED = Wanted((TensorSpec("x", "float32", (None, 2)),))
PICTURE = Wanted((TensorSpec("x", "float32", (None, 2, 3)),), Preprocess(scale=1.0))
Content = Callable[[], bytes]


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=ARRAY)
    return file.getvalue()


def npy(array: np.ndarray = ARRAY) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def pictures() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(file, "PNG")
    return zipped({"a.png": file.getvalue()})


def test_sets() -> bytes:
    return zipped({f"test_data_set_{i}/input_0.pb": numpy_helper.from_array(ARRAY[i : i + 1]).SerializeToString() for i in range(3)})


test_sets.__test__ = False  # type: ignore[attr-defined]  # it makes a file, and is no test


def polygraphy() -> bytes:
    return json.dumps(
        [{"x": {"array": base64.b64encode(npy(ARRAY[i : i + 1])).decode(), "polygraphy_class": "ndarray"}} for i in range(3)]
    ).encode()


def json_lines() -> bytes:
    return b"".join(json.dumps({"x": row.tolist()}).encode() + b"\n" for row in ARRAY)


def safetensors() -> bytes:
    header = json.dumps({"__metadata__": {"a": "b"}, "x": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}).encode()
    return len(header).to_bytes(8, "little") + header + ARRAY.tobytes()


FILES: Mapping[str, Content] = {
    ".npz": npz,
    ".npy": npy,
    ".zip of pictures": pictures,
    ".zip of test sets": test_sets,
    ".safetensors": safetensors,
    ".json": polygraphy,
    ".jsonl": json_lines,
}


def written(folder: Path, content: bytes) -> Path:
    """Return a file that is called by another name, as uploads are."""
    path = folder / "calibration"
    path.write_bytes(content)
    return path


def test_no_file_is_of_two_formats() -> None:
    plain = [reader for reader in READERS if reader.holds is None]
    heads = [bytes(reader.magic_at) + reader.magic for reader in plain]
    assert [pair for pair in itertools.permutations(heads, 2) if pair[0].startswith(pair[1])] == []
    assert len({reader.holds for reader in READERS if reader.holds}) == len(READERS) - len(plain)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_known_by_its_content_whatever_its_name(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, FILES[kind]())
    if "pictures" in kind:
        found = read_arrays(path, PICTURE).arrays
        np.testing.assert_array_equal(found["x"], np.arange(6, dtype=np.float32).reshape(1, 2, 3))
        return
    found = read_arrays(path, WANTED).arrays
    assert list(found) == ["x"]
    np.testing.assert_array_equal(found["x"], ARRAY)


@pytest.mark.parametrize("kind", FILES)
def test_an_upload_is_named_after_its_first_bytes(kind: str, tmp_path: Path) -> None:
    expected = ".npz" if kind.startswith(".zip") else kind  # what lies in a .zip is looked at by the stage that reads it, not by a server
    assert suffix_of(written(tmp_path, FILES[kind]())) == expected


@pytest.mark.parametrize("kind", [".npz", ".npy", ".safetensors"])
def test_the_room_that_a_file_takes_is_known_before_it_is_read(kind: str, tmp_path: Path) -> None:
    reader = next(reader for reader in READERS if reader.suffix == kind)
    with written(tmp_path, FILES[kind]()).open("rb") as file:
        assert ARRAY.nbytes <= reader.unpacked_bytes(file, "calibration file") < ARRAY.nbytes + 1000  # and the header


def test_a_file_of_no_format_is_refused_by_the_names_of_all(tmp_path: Path) -> None:
    path = written(tmp_path, b"\x01\x02\x03\x04")
    assert suffix_of(path) in suffixes()
    with pytest.raises(InvalidCalibrationSetError, match=r"'calibration': is none of \.npz, \.npy, \.zip, "):
        read_arrays(path, WANTED)


@pytest.mark.parametrize(
    ("content", "found", "fix"),
    [
        (b"", "is empty", "numpy.savez"),
        (b"\x08\x08\x12\x07pytorch:\x01", "is an ONNX model, not samples", "seem swapped"),
        (b"\x80\x02\x8a\nl\xfc\x9c", "is a Python pickle .*\\.pt", "tensor.numpy()"),
        (zipped({"model/data.pkl": b"\x80\x02", "model/data/0": b"1"}), r"is a PyTorch file \(\.pt, \.pth\)", "tensor.numpy()"),
        (zipped({"model.onnx": b"\x08\x08"}), "is a .zip of an ONNX model", "seem swapped"),
        (zipped({"labels.csv": b"a.jpg,1\n"}), "table without the pictures", "beside the table"),
        (zipped({"a.txt": b"", "b.mp4": b""}), "is a .zip of 2 files, such as 'a.txt', 'b.mp4'", "JPEG, PNG"),
        (zipped({}), "is an empty .zip", "numpy.savez"),
        (b"id,pixel\n1,0.5\n", r"is a table of text \(\.csv\) without the pictures", "Put it beside its pictures"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "is a single JPEG picture", "give the folder itself"),
        (b"\x1f\x8b\x08\0", "is a .tar or another archive", "as a .zip"),
        (b"\x89HDF\r\n", "is an HDF5 file", "Read it with h5py, and write it with numpy.savez"),
    ],
)
def test_what_is_given_by_mistake_is_named_with_what_to_do(content: bytes, found: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=found) as raised:
        read_arrays(written(tmp_path, content), WANTED)
    assert fix in raised.value.fix


def test_an_array_without_a_name_serves_one_input_alone(tmp_path: Path) -> None:
    two = Wanted((*WANTED.inputs, TensorSpec("y", "float32", (None, 2))))
    with pytest.raises(InvalidCalibrationSetError, match=r"a single array \(.npy\) found, 2 expected: 'x', 'y'"):
        read_arrays(written(tmp_path, npy()), two)


def test_formats_are_put_in_words_for_users() -> None:
    assert formats_in_words().startswith(".npz with one array per model input, or .npy for one input, or .zip or a folder of pictures, or ")


def test_an_attention_mask_is_made_of_arrays_whose_padding_is_stated(tmp_path: Path) -> None:
    inputs = tuple(TensorSpec(name, "int64", ("N", "T")) for name in ("input_ids", "attention_mask"))
    path = tmp_path / "tokens.npz"
    np.savez(path, input_ids=np.array([[5, 6, 0], [7, 0, 0]]))
    assert "attention_mask" not in read_arrays(path, Wanted(inputs)).arrays
    found = read_arrays(path, Wanted(inputs, tokens=TokenOptions(pad=0))).arrays
    assert found["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
