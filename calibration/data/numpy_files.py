"""Reads the files that numpy writes, .npz and .npy, without ever loading a pickle."""

from __future__ import annotations

from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.data.formats.wanted import Found, Wanted
from calibration.errors import InvalidCalibrationSetError

Array: TypeAlias = NDArray[np.generic]


def read_npz(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the arrays of an .npz under their own names.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes; an .npz names its arrays itself.

    Raises:
        InvalidCalibrationSetError: A member is no array, or holds pickled objects.
        ValueError: The file is damaged; so do ``zipfile.BadZipFile``, ``zlib.error``, ``EOFError`` and ``OSError`` say.
    """
    with np.load(file, allow_pickle=False) as archive:
        return Found({key: _read_member(archive, key) for key in archive.files})


def read_npy(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the array of an .npy under the name of the only input.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes: one input.

    Raises:
        InvalidCalibrationSetError: The model has several inputs, or the array holds pickled objects.
        ValueError: The file is damaged; so do ``EOFError`` and ``OSError`` say.
    """
    try:
        loaded: Array = np.load(file, allow_pickle=False)
    except ValueError as exc:
        if "allow_pickle" not in str(exc):
            raise
        raise InvalidCalibrationSetError(f"{name}: holds a pickled object array, which is never loaded", fix=_PLAIN_NUMBERS) from exc
    if len(wanted.names) > 1:
        names = ", ".join(f"'{one}'" for one in wanted.names)
        raise InvalidCalibrationSetError(
            f"{name}: a single array (.npy) found, {len(wanted.names)} expected: {names}",
            fix="Write an .npz with one array per model input.",
        )
    return Found({wanted.names[0]: loaded})


def _read_member(archive: np.lib.npyio.NpzFile, name: str) -> Array:
    try:
        array = archive[name]
    except ValueError as exc:
        if "allow_pickle" not in str(exc):
            raise
        raise InvalidCalibrationSetError(
            f"array '{name}': holds pickled Python objects, which are never loaded", fix=_PLAIN_NUMBERS
        ) from exc
    if not isinstance(array, np.ndarray):
        raise InvalidCalibrationSetError(f"array '{name}': is not a .npy member", fix="Write the file with numpy.savez.")
    return array


_PLAIN_NUMBERS = "Convert it to a plain number type, e.g. array.astype('float32'), and save it again."
