"""Checks the order of classes whose labels came as names: sorted names are right only where all classes occur."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.data.formats.wanted import Found
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

_SHOWN = 3


def check_classes(found: Found, first: Found | None, outputs: Sequence[TensorSpec], what: str) -> None:
    """Refuse names of classes whose order is not known to be the model's.

    Args:
        found: What a file of samples holds.
        first: What the calibration file holds, for the validation file.
        outputs: Of the model.
        what: The file's part, for a message.

    Raises:
        InvalidCalibrationSetError: Not all classes of the model occur, and none are stated; or both files have other ones.
    """
    if not found.classes or found.are_classes_stated:
        return
    count, sizes = len(found.classes), {spec.shape[-1] for spec in outputs if len(spec.shape) > 1 and isinstance(spec.shape[-1], int)}
    if sizes and count not in sizes and not (count == len(_BINARY) and 1 in sizes):
        known = " or ".join(map(str, sorted(map(str, sizes))))
        raise InvalidCalibrationSetError(
            f"{what}: labels are names of {count} classes ({_shown(found.classes)}), and the model gives {known} numbers: their "
            "order is not known",
            fix=_STATE,
        )
    if first is not None and first.classes and first.classes != found.classes:
        raise InvalidCalibrationSetError(
            f"{what}: other classes found ({_shown(found.classes)}; {count} in all) than in the calibration file "
            f"({_shown(first.classes)}; {len(first.classes)})",
            fix=_STATE,
        )


def classes_note(found: Found) -> tuple[str, ...]:
    """Return what is said of classes whose order is that of their sorted names."""
    if not found.classes or found.are_classes_stated:
        return ()
    return (f"labels are names of {len(found.classes)} classes, numbered in sorted order: {_shown(found.classes)}",)


def _shown(classes: Sequence[str]) -> str:
    named = [f"'{one}' is {index}" for index, one in enumerate(classes)]
    return ", ".join(named if len(named) <= _SHOWN + 1 else [*named[:_SHOWN], "...", named[-1]])


_BINARY = (0, 1)
_STATE = "List all classes in the model's order: preprocess.classes in the configuration, or a file classes.txt beside the pictures."
