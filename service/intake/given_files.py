"""Looks at the files that a user names, before anything is loaded or sent: are they there, and what are they by their first bytes?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from calibration.data.mistaken_files import HEAD_BYTES, mistaken
from calibration.data.readers import READERS
from calibration.errors import InputError, InvalidCalibrationSetError, InvalidMetricError, InvalidModelError

_EXPORT = "Export it to ONNX first: torch.onnx.export(model, example_input, 'model.onnx')."


def check_files(model: Path, calibration: Path, validation: Path | None, metric_model: Path | None) -> None:
    """Refuse paths that are not there, are of the wrong sort, or hold what belongs elsewhere.

    Args:
        model: An .onnx file, or an archive of one.
        calibration: Samples: a file or a folder.
        validation: The same.
        metric_model: The user's own metric, an .onnx file.

    Raises:
        InvalidModelError: The model; the other errors are of the other files.
    """
    check_model(model, calibration)
    check_samples(calibration, "calibration set")
    if validation is not None:
        check_samples(validation, "validation set")
    if metric_model is not None:
        check_file(metric_model, InvalidMetricError, "metric model")


def check_samples(path: Path, what: str) -> None:
    """Refuse samples that are not there or cannot be read, and files that hold something else; a folder is looked at when it is packed.

    Raises:
        InvalidCalibrationSetError: With what the file is, and what to do.
    """
    if path.is_dir():
        return
    check_file(path, InvalidCalibrationSetError, what)
    head = _head(path)
    known = None if any(reader.begins(head) for reader in READERS) else mistaken(head)
    if known is not None:
        raise InvalidCalibrationSetError(f"{what} {path}: {known[0]}", fix=known[1])


def check_file(path: Path, error: Callable[..., InputError], what: str) -> None:
    """Refuse what is no file that can be read."""
    if path.is_dir():
        inside = sorted(path.glob("*.onnx"))
        fix = f"Give the file: {inside[0]}" if len(inside) == 1 else "Name the file itself."
        raise error(f"{what} {path}: it is a folder, a file expected", fix=fix)
    if not path.exists():
        raise error(f"{what} {path}: no such file", fix="Check the path.")
    if not path.is_file():
        raise error(f"{what} {path}: it is not a plain file", fix="Name the file itself.")
    if not os.access(path, os.R_OK):
        raise error(f"{what} {path}: it is not readable", fix="Change its permissions.")


def check_model(model: Path, calibration: Path | None = None) -> None:
    """Refuse a model that is not there, is no file, or holds something else.

    Args:
        model: An .onnx file, or an archive of one.
        calibration: The samples given beside it, which may be the model; None where there are none.

    Raises:
        InvalidModelError: With what the file is, and what to do.
    """
    check_file(model, InvalidModelError, "model")
    head = _head(model)
    if head.startswith(b"\x80"):
        raise InvalidModelError(
            f"model {model}: is a PyTorch file (.pt, .pth) or another Python pickle, an .onnx file expected", fix=_EXPORT
        )
    if head.startswith(b"\x93NUMPY") or (head.startswith(b"PK") and _first_member(head).endswith(".npy")):
        swap = (
            calibration is not None
            and calibration.is_file()
            and (mistaken(_head(calibration)) or ("", ""))[0].startswith("is an ONNX model")
        )
        raise InvalidModelError(
            f"model {model}: holds arrays of numpy, an .onnx file expected",
            fix="Swap the two: the model comes first, samples after --calibration." if swap else "Give the model first: an .onnx file.",
        )
    if head.startswith(b"PK") and "/" in _first_member(head) and _first_member(head).endswith("data.pkl"):
        raise InvalidModelError(f"model {model}: is a PyTorch file (.pt, .pth), an .onnx file expected", fix=_EXPORT)


def _first_member(head: bytes) -> str:
    """Return the name of the first file of a .zip, from its first bytes."""
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].decode("utf-8", errors="replace")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
