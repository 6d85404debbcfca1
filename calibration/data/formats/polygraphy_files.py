"""Reads the JSON that Polygraphy saves inputs in (``--save-inputs``): a list of calls, each with its arrays by name.

An array is ``{"array": text, "polygraphy_class": "ndarray"}``, the text being an .npy file in base64; old versions wrote the marker
``"__polygraphy_encoded_ndarray": "constructor"``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from calibration.data.claimed_sizes import claimed_by_array
from calibration.data.formats.json_text import value_from_json_text
from calibration.data.formats.model_calls import samples_from_calls
from calibration.data.formats.wanted import Array, Found, Wanted
from calibration.errors import InvalidCalibrationSetError

_ROWS = "Write rows of tokens as .jsonl, one object a line: pandas' frame.to_json(path, orient='records', lines=True)."
_FIX = "Save the inputs by `polygraphy run MODEL --onnxrt --data-loader-script FILE --save-inputs inputs.json`."


def read_polygraphy(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the inputs of all calls of a file.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes.

    Raises:
        InvalidCalibrationSetError: It is not what Polygraphy writes.
        ValueError: An array is damaged.
    """
    value = value_from_json_text(_text(file.read(), name), name, "", _FIX)
    calls = []
    for index, call in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(call, Mapping) or not call:
            raise InvalidCalibrationSetError(f"{name}: call {index} is no object of arrays by the names of inputs", fix=_FIX)
        calls.append({str(key): _array(item, f"{name}: '{key}' of call {index}") for key, item in call.items()})
    if not calls:
        raise InvalidCalibrationSetError(f"{name}: holds no calls, a list of objects of arrays expected, as Polygraphy writes it", fix=_FIX)
    return Found(samples_from_calls(calls, wanted, name))


def _array(item: object, what: str) -> Array:
    if not isinstance(item, Mapping) or not isinstance(text := item.get("array"), str):
        fix = _FIX if isinstance(item, Mapping | str) else _ROWS
        raise InvalidCalibrationSetError(f"{what} is no array as Polygraphy writes it", fix=fix)
    data = io.BytesIO(base64.b64decode(text, validate=True))
    claimed_by_array(data, what)
    data.seek(0)
    found: Array = np.load(data, allow_pickle=False)
    if found.dtype.kind not in "fiub":
        raise InvalidCalibrationSetError(f"{what} holds {found.dtype.name}, numbers expected", fix=_FIX)
    return found


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidCalibrationSetError(f"{name}: is no UTF-8 text", fix=_FIX) from exc
