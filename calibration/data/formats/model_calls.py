"""Makes samples of the inputs of whole calls, as other tools keep them: each array in the model's own form, with its axis of samples.

1. Where the first axis of every input may count samples (its size is open, or 1, or one and the same in all), the arrays of the calls are
   joined on it: a call of b samples gives b of them.
2. Else every call is one sample, and the arrays are stacked on a new first axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from calibration.data.formats.wanted import Array, Wanted
from calibration.errors import InvalidCalibrationSetError

if TYPE_CHECKING:
    from calibration.onnx_model.model_io import TensorSpec


def samples_from_calls(calls: Sequence[Mapping[str, Array]], wanted: Wanted, name: str) -> dict[str, Array]:
    """Return the arrays of all calls, the first axis counting samples.

    Args:
        calls: At least one; each has the same names.
        wanted: What the model takes.
        name: Of the file, for a message.

    Raises:
        InvalidCalibrationSetError: The calls have other names, types or shapes than each other.
    """
    names = list(calls[0])
    for index, call in enumerate(calls):
        if set(call) != set(names):
            raise InvalidCalibrationSetError(
                f"{name}: call {index} holds {', '.join(map(repr, call)) or 'nothing'}, call 0 {', '.join(map(repr, names)) or 'nothing'}",
                fix="Give every call the same inputs.",
            )
    join = all(_counts(spec, calls, wanted.inputs) for spec in wanted.inputs if spec.name in names)
    found = {}
    for one in names:
        arrays = [call[one] for call in calls]
        shapes = {array.shape[1:] if join else array.shape for array in arrays}
        types = {array.dtype for array in arrays}
        if len(shapes) > 1 or len(types) > 1:
            shown = ", ".join(sorted(f"{array.dtype} {array.shape}" for array in {(a.dtype, a.shape): a for a in arrays}.values())[:3])
            raise InvalidCalibrationSetError(
                f"{name}: '{one}' has other shapes or types in some calls: {shown}; one expected", fix="Pad or cut all calls to one shape."
            )
        found[one] = np.concatenate(arrays) if join else np.stack(arrays)
    return found


def _counts(spec: TensorSpec, calls: Sequence[Mapping[str, Array]], specs: Sequence[TensorSpec]) -> bool:
    """Return whether the first axis of an input may count samples in every call."""
    firsts = {len(call[one.name]) for call in calls for one in specs if one.name in call and call[one.name].ndim}
    if not spec.has_rank:
        return all(call[spec.name].ndim > 0 for call in calls)
    if not spec.shape:
        return False
    fixed = {one.shape[0] for one in specs if one.shape}
    if isinstance(spec.shape[0], int) and spec.shape[0] != 1 and fixed != {spec.shape[0]}:
        return False
    same = [{len(call[one.name]) for one in specs if one.name in call and call[one.name].ndim} for call in calls]
    return bool(firsts) and all(len(sizes) == 1 for sizes in same)
