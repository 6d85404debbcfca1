"""Other ways in which pictures may have been meant to be prepared, tried where a model's answers are no better than chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

_MEANS = (0.485, 0.456, 0.406)  # of ImageNet, for pixels in 0..1: what most pretrained networks take
_DEVIATIONS = (0.229, 0.224, 0.225)
_RAW = 16.0  # values above are those of bytes
_UNIT = 1.0 + 1e-6


def other_preparations(inputs: Mapping[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield other preparations of the only picture input, each with what to do, in the user's words; nothing where there is none.

    Args:
        inputs: (samples, ...) by name; a picture is floating-point, (samples, channels, height, width) or (samples, height, width,
            channels), of 1 or 3 channels.
    """
    pictures = [name for name, array in inputs.items() if array.ndim == 4 and array.dtype.kind == "f" and _channels(array) is not None]
    if len(pictures) != 1:
        return
    (name,) = pictures
    array = inputs[name]
    axis = _channels(array)
    assert axis is not None
    for words, values in _variants(array.astype(np.float32), axis):
        yield words, {**inputs, name: np.ascontiguousarray(values).astype(array.dtype)}


def _variants(x: Floats, axis: int) -> Iterator[tuple[str, NDArray[np.floating]]]:
    shape = [1] * 4
    shape[axis] = -1
    count = x.shape[axis]
    means, deviations = (np.array(values[:count], dtype=np.float32).reshape(shape) for values in (_MEANS, _DEVIATIONS))
    low, high = float(x.min()), float(x.max())
    imagenet = "subtracting the ImageNet means and dividing by the deviations"
    if high > _RAW and low >= 0:
        yield "dividing the pixels by 255", x / 255
        yield "scaling the pixels from 0..255 to -1..1", x / 127.5 - 1
        yield f"dividing the pixels by 255, {imagenet}", (x / 255 - means) / deviations
    elif low >= 0 and high <= _UNIT:
        yield "multiplying the pixels by 255", x * 255
        yield "scaling the pixels from 0..1 to -1..1", x * 2 - 1
        yield imagenet, (x - means) / deviations
    else:
        yield "leaving the pixels in 0..1, without ImageNet's means and deviations", x * deviations + means
        yield "leaving the pixels in 0..255, without ImageNet's means and deviations", (x * deviations + means) * 255
    if count > 1:
        yield "reversing the order of the channels (RGB and BGR)", np.flip(x, axis)
    rows, columns = (2, 3) if axis == 1 else (1, 2)
    if x.shape[rows] == x.shape[columns]:
        yield "swapping height and width", np.swapaxes(x, rows, columns)


def _channels(array: Array) -> int | None:
    """Return the axis of the channels, None where it is no picture."""
    return next((axis for axis in (1, 3) if array.shape[axis] in (1, 3)), None)
