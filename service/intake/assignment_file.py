"""Reads the file of a precision assignment, as a job's assignment.json or the command ``recipe`` writes it."""

from __future__ import annotations

import os
from pathlib import Path

from calibration.errors import InvalidConfigError
from service.intake.config_text import value_from_config_text

FIX = "Give a job's assignment.json, or an object of layer names and precisions."


def assignment_value(given: object) -> object:
    """Return what a file holds that is named by its path; anything else as it is.

    Raises:
        InvalidConfigError: The file cannot be read, is not JSON, or names no layer: a job would go on as if there were no file.
    """
    if not isinstance(given, str | os.PathLike):
        return given
    path = Path(os.fspath(given))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidConfigError(f"assignment {path}: {exc.strerror}", fix="Check the path.") from exc
    except ValueError as exc:
        raise InvalidConfigError(f"assignment {path}: it is not text in UTF-8", fix=FIX) from exc
    value = value_from_config_text(text, f"assignment {path}", FIX)
    if value == {}:
        raise InvalidConfigError(f"assignment {path}: found an empty object, expected a precision for every layer", fix=FIX)
    return value
