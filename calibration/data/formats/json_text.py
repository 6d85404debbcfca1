"""Parses JSON text of samples, with errors that name the place."""

from __future__ import annotations

import json

from calibration.codec import object_once
from calibration.errors import InvalidCalibrationSetError


def value_from_json_text(text: str, name: str, place: str, fix: str) -> object:
    """Return the value of a JSON text.

    Args:
        text: The JSON.
        name: Of the file, for a message.
        place: Where in the file, for a message: "line 3"; "" for the whole of it.
        fix: What to do where it is not JSON.

    Raises:
        InvalidCalibrationSetError: It is not JSON, is nested too deeply, or has a key twice in one object.
    """
    where = f"{name}: {place} " if place else f"{name}: it "
    try:
        value: object = json.loads(text, object_pairs_hook=object_once)
    except RecursionError as exc:
        raise InvalidCalibrationSetError(f"{where}is nested too deeply", fix=fix) from exc
    except ValueError as exc:
        raise InvalidCalibrationSetError(f"{where}is not JSON: {exc}", fix=fix) from exc
    return value
