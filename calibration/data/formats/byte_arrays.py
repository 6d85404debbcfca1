"""Arrays of bytes for a picture input of floats: prepared as the user states, refused where nothing is stated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from calibration.data.formats.pictures import layout_of
from calibration.data.formats.preprocess import EXAMPLE, Colors, Layout
from calibration.data.formats.wanted import Array, Wanted
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

if TYPE_CHECKING:
    from calibration.onnx_model.model_io import TensorSpec

_RANK = 4
_AT_ONCE = 64  # samples


def with_floats(arrays: Mapping[str, Array], wanted: Wanted) -> dict[str, Array]:
    """Return arrays of which those of bytes (uint8), where the model takes floats, are prepared as ``wanted.preprocess`` says.

    Args:
        arrays: By name; an array of bytes is (samples, height, width, channels) or (samples, channels, height, width), whichever the model
            takes: it is brought into the model's layout.
        wanted: What the model takes, and what the user says.

    Raises:
        InvalidCalibrationSetError: There are bytes where floats are expected, and nothing says how they become floats.
        InvalidConfigError: What is stated does not fit the array.
    """
    found = dict(arrays)
    for spec in wanted.inputs:
        array = arrays.get(spec.name)
        if array is None or array.dtype != np.uint8 or np.dtype(spec.dtype).kind != "f" or not array.ndim:
            continue
        if not wanted.preprocess.is_stated:
            raise InvalidCalibrationSetError(
                f"array '{spec.name}': uint8 found, {spec.dtype} expected, and nothing states how the bytes become such values",
                fix=f"Add to the configuration {EXAMPLE}. Or convert the array the way the model's input is made.",
            )
        found[spec.name] = _prepared(array, spec, wanted)
    return found


def _prepared(array: Array, spec: TensorSpec, wanted: Wanted) -> Array:
    """Return (samples, ...) floats, made some samples at a time."""
    pixels, preprocess = array.view(np.uint8), wanted.preprocess
    if pixels.ndim != _RANK or len(spec.shape) != _RANK:
        whole = np.empty(pixels.shape, dtype=np.dtype(spec.dtype))
        for start in range(0, len(pixels), _AT_ONCE):
            whole[start : start + _AT_ONCE] = preprocess.normalized(pixels[start : start + _AT_ONCE, ..., None], 1)[..., 0]
        return whole
    given = layout_of((None, *pixels.shape[1:]))
    into = preprocess.layout or layout_of(spec.shape) or given
    if given is None or into is None:
        given = into
    if given is None:
        raise InvalidConfigError(
            f"preprocess.layout: missing, and neither the shape {pixels.shape} of the array '{spec.name}' nor the model's says which axis "
            "holds the channels",
            fix='Add "layout": "NCHW" or "NHWC".',
        )
    last = np.moveaxis(pixels, 1, -1) if given is Layout.NCHW else pixels
    last = last[..., ::-1] if preprocess.colors is Colors.BGR and last.shape[-1] == Colors.BGR.channels else last
    shape = last.shape if into is Layout.NHWC else (len(last), last.shape[3], *last.shape[1:3])
    prepared = np.empty(shape, dtype=np.dtype(spec.dtype))
    for start in range(0, len(last), _AT_ONCE):
        values = preprocess.normalized(last[start : start + _AT_ONCE], last.shape[-1])
        prepared[start : start + _AT_ONCE] = values if into is Layout.NHWC else np.moveaxis(values, -1, 1)
    return prepared
