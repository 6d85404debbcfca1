"""Reads the test sets that lie beside many ONNX models: folders ``test_data_set_0``, ... with a file ``input_0.pb``, ... for each input."""

from __future__ import annotations

import re
import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO

from calibration.data.formats.model_calls import samples_from_calls
from calibration.data.formats.wanted import Array, Found, Wanted
from calibration.data.formats.zip_members import check_directory, members_of, read_member
from calibration.errors import InvalidCalibrationSetError

_INPUT = re.compile(r"input_(\d{1,6})\.pb")
_MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit


def is_test_input(name: str) -> bool:
    """Return whether a file is named like the input of a test set."""
    return _INPUT.fullmatch(PurePosixPath(name).name) is not None


def read_test_sets(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the inputs of all test sets in a .zip, in the order of their folders' numbers.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes: the inputs of a set are in its order.

    Raises:
        InvalidCalibrationSetError: A set has another number of inputs, or one that is no tensor of numbers.
    """
    check_directory(file, name)
    with zipfile.ZipFile(file) as archive:
        sets: dict[str, dict[int, zipfile.ZipInfo]] = {}
        for entry in members_of(archive, name):
            found = _INPUT.fullmatch(PurePosixPath(entry.filename).name)
            if found is not None:
                sets.setdefault(str(PurePosixPath(entry.filename).parent), {})[int(found[1])] = entry
        calls = []
        for folder in sorted(sets, key=_in_number_order):
            inputs = sets[folder]
            if sorted(inputs) != list(range(len(wanted.names))):
                raise InvalidCalibrationSetError(
                    f"{name}: test set '{folder}' holds {', '.join(f'input_{one}.pb' for one in sorted(inputs))}, one file for each of the "
                    f"model's {len(wanted.names)} inputs expected: {', '.join(map(repr, wanted.names))}",
                    fix="Give the test sets of this model, with all of its inputs.",
                )
            call = {one: _tensor(read_member(archive, inputs[index], _MAX_FILE_BYTES, name), inputs[index].filename, name)
                    for index, one in enumerate(wanted.names)}  # fmt: skip
            calls.append(call)
    return Found(samples_from_calls(calls, wanted, name), notes=(f"{len(calls)} ONNX test sets were read",))


def _tensor(data: bytes, member: str, name: str) -> Array:
    import onnx  # here, since the commands that only name the formats do without
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf publishes no types
    from onnx import numpy_helper

    fix = "Give test sets whose inputs are plain tensors, each with its data in its own file."
    try:
        tensor = onnx.TensorProto.FromString(data)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InvalidCalibrationSetError(f"{name}: '{member}' keeps its data in another file", fix=fix)
        array: Array = numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError, KeyError) as exc:
        raise InvalidCalibrationSetError(f"{name}: '{member}' holds no tensor that can be read: {exc}", fix=fix) from exc
    if array.dtype.kind not in "fiub" and array.dtype.name not in _ML_TYPES:
        raise InvalidCalibrationSetError(f"{name}: '{member}' holds {array.dtype.name}, numbers expected", fix=fix)
    return array


def _in_number_order(folder: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts test_data_set_2 before test_data_set_10."""
    return tuple((int(part), "") if part.isdecimal() and len(part) < _DIGITS else (-1, part) for part in re.split(r"(\d+)", folder))


_ML_TYPES = ("bfloat16",)
_DIGITS = 10
