"""Files of other tools: ONNX test sets, Polygraphy's JSON, safetensors."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.data.formats.wanted import Found, Wanted
from calibration.data.readers import read_arrays
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

X, MASK = TensorSpec("x", "float32", ("N", 2)), TensorSpec("mask", "int64", ("N",))
STATE = TensorSpec("h", "float32", (1, "batch", 4))
RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(12, 2)).astype(np.float32)
Arrays = Mapping[str, NDArray[np.generic]]


def read(path: Path, *inputs: TensorSpec) -> Found:
    return read_arrays(path, Wanted(inputs or (X,)))


def refusal(path: Path, *inputs: TensorSpec) -> str:
    with pytest.raises(InvalidCalibrationSetError) as raised:
        read(path, *inputs)
    return raised.value.detail


def with_sets(folder: Path, members: Mapping[str, bytes]) -> Path:
    path = folder / "sets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tensor(array: NDArray[np.generic]) -> bytes:
    return bytes(numpy_helper.from_array(np.asarray(array)).SerializeToString())


def polygraphy(*calls: Arrays, marker: str = "polygraphy_class", value: str = "ndarray") -> bytes:
    def encoded(array: NDArray[np.generic]) -> dict[str, str]:
        file = io.BytesIO()
        np.save(file, array)
        return {"array": base64.b64encode(file.getvalue()).decode(), marker: value}

    return json.dumps([{name: encoded(array) for name, array in call.items()} for call in calls], indent=4).encode()


def test_test_sets_are_samples_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    members = {f"net/test_data_set_{i}/input_0.pb": tensor(VALUES[i : i + 1]) for i in range(12)}
    members |= {f"net/test_data_set_{i}/input_1.pb": tensor(np.array([i])) for i in range(12)}
    members |= {"net/test_data_set_0/output_0.pb": b"not read", "net/model.onnx": b"neither"}
    found = read(with_sets(tmp_path, members), X, MASK).arrays
    np.testing.assert_array_equal(found["x"], VALUES)
    assert found["mask"].tolist() == list(range(12))


def test_a_test_set_of_several_samples_gives_them_all(tmp_path: Path) -> None:
    found = read(with_sets(tmp_path, {"input_0.pb": tensor(VALUES)})).arrays
    np.testing.assert_array_equal(found["x"], VALUES)


def test_sets_whose_first_axis_counts_no_samples_are_a_sample_each(tmp_path: Path) -> None:
    members = {f"test_data_set_{i}/input_0.pb": tensor(np.full((1, 1, 4), i, np.float32)) for i in range(3)}
    twice = {name.replace("input_0", "input_1"): tensor(np.full((2, 2), 1, np.float32)) for name in members}
    found = read(with_sets(tmp_path, members | twice), STATE, TensorSpec("x", "float32", (2, 2))).arrays
    assert (found["h"].shape, found["x"].shape) == ((3, 1, 1, 4), (3, 2, 2))


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        (
            {"test_data_set_0/input_0.pb": tensor(VALUES), "test_data_set_0/input_1.pb": tensor(VALUES)},
            "one file for each of the model's 1",
        ),
        ({"test_data_set_0/input_1.pb": tensor(VALUES)}, "holds input_1.pb, one file"),
        ({"test_data_set_0/input_0.pb": b"\xff\xff\xff"}, "'test_data_set_0/input_0.pb' holds no tensor that can be read"),
        ({"test_data_set_0/input_0.pb": tensor(np.array(["a"], dtype=object))}, "holds object, numbers expected"),
        (
            {"a/input_0.pb": onnx.TensorProto(dims=[2**40], data_type=onnx.TensorProto.FLOAT, raw_data=b"1234").SerializeToString()},
            "holds no tensor that can be read",
        ),
        ({"a/input_0.pb": tensor(VALUES), "b/input_0.pb": tensor(VALUES[:, :1])}, "'x' has other shapes or types in some calls"),
    ],
)
def test_test_sets_of_another_model_or_damaged_ones_are_refused(tmp_path: Path, members: Mapping[str, bytes], detail: str) -> None:
    assert detail in refusal(with_sets(tmp_path, members))


@pytest.mark.parametrize(("marker", "value"), [("polygraphy_class", "ndarray"), ("__polygraphy_encoded_ndarray", "constructor")])
def test_inputs_that_polygraphy_saved_are_read(tmp_path: Path, marker: str, value: str) -> None:
    path = tmp_path / "inputs.json"
    path.write_bytes(polygraphy({"x": VALUES[:5]}, {"x": VALUES[5:]}, marker=marker, value=value))
    np.testing.assert_array_equal(read(path).arrays["x"], VALUES)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"[", "it is not JSON"),
        (b"[]", "holds no calls"),
        (b"[1]", "call 0 is no object of arrays"),
        (b'[{"x": [1, 2]}]', "'x' of call 0 is no array as Polygraphy writes it"),
        (b'[{"x": {"array": "?"}}]', "is damaged or truncated"),
        (polygraphy({"x": VALUES}, {"y": VALUES}), "call 1 holds 'y', call 0 'x'"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, data: bytes, detail: str) -> None:
    (tmp_path / "inputs.json").write_bytes(data)
    assert detail in refusal(tmp_path / "inputs.json")


def test_an_array_in_json_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    text = base64.b64encode(file.getvalue()).decode()
    (tmp_path / "inputs.json").write_text(json.dumps([{"x": {"array": text}}]))
    assert "its header promises" in refusal(tmp_path / "inputs.json")


def safetensors(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_of_several_types_are_read(tmp_path: Path) -> None:
    ids, halves = np.arange(12).reshape(12, 1), VALUES.astype(ml_dtypes.bfloat16)
    data = VALUES.tobytes() + ids.tobytes() + halves.tobytes()
    header = {"x": entry("F32", [12, 2], 0, 96), "ids": entry("I64", [12, 1], 96, 192), "b": entry("BF16", [12, 2], 192, 240)}
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, data))
    found = read(tmp_path / "a.safetensors").arrays
    np.testing.assert_array_equal(found["x"], VALUES)
    np.testing.assert_array_equal(found["ids"], ids)
    np.testing.assert_array_equal(found["b"], halves.astype(np.float32))


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (safetensors({"x": entry("F32", [2**40], 0, 2**42)}, b""), "its header promises"),
        (safetensors({"x": entry("F32", [1], 0, 8)}, bytes(8)), "its header promises 4 bytes at 0 to 8"),
        (safetensors({"x": entry("F32", [-1], 0, 4)}, bytes(4)), "no whole numbers from 0"),
        (safetensors({"x": entry("F8_E4M3", [1], 0, 1)}, bytes(1)), "has the type 'F8_E4M3'"),
        (safetensors({"x": 1}, b""), "its entry in the header is no object"),
        ((2**40).to_bytes(8, "little") + b'{"x"', "its header has 1099511627776 bytes"),
        ((9).to_bytes(8, "little") + b'{"x": 1, "y"', "its header is not JSON"),
    ],
)
def test_safetensors_that_lie_are_refused(tmp_path: Path, data: bytes, detail: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    assert detail in refusal(tmp_path / "a.safetensors")
