"""Arrays of numpy from whatever holds numbers: arrays, numbers, and tensors of other libraries, none of which is imported."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InvalidCalibrationSetError

Array: TypeAlias = NDArray[np.generic]


def is_array(value: object) -> bool:
    """Whether a value is an array or a tensor, of any library."""
    return isinstance(value, np.ndarray | np.generic) or callable(getattr(value, "__array__", None))


def array_of(value: object, what: str) -> Array:
    """Return the numbers of a value; those of a tensor on a GPU, or one with a gradient, are copied.

    Args:
        value: An array, a number, a tensor (read through ``detach``, ``cpu`` and ``numpy``, where it has them) or a list of numbers.
        what: It is, for a message: "sample 3, array 'input'".

    Raises:
        InvalidCalibrationSetError: It holds something else than numbers.
    """
    if not isinstance(value, np.ndarray | np.generic):
        for step in ("detach", "cpu", "numpy"):
            method = getattr(value, step, None)
            if callable(method):
                try:
                    value = method()
                except (RuntimeError, TypeError) as exc:
                    raise InvalidCalibrationSetError(
                        f"{what}: {type(value).__name__}.{step}() failed: {exc}", fix="Convert it to an array of numpy yourself."
                    ) from exc
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as exc:
        raise InvalidCalibrationSetError(f"{what}: it is no array of numbers: {exc}", fix=_NUMBERS) from exc
    if array.dtype.kind not in "biufcV" or array.dtype.hasobject:
        is_text = array.dtype.kind in "US"
        raise InvalidCalibrationSetError(
            f"{what}: {'text' if is_text else array.dtype} found, numbers expected", fix=_WORDS if is_text else _NUMBERS
        )
    return array


_NUMBERS = "Give arrays of numbers, all samples of one shape."
_WORDS = "Give numbers: of labels the index that each has among the model's classes, classes.index(label)."
