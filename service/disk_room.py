"""Room on the disk: asked for before a file is written and while it grows, so that a full disk is an answer and no accident."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from service.errors import InsufficientStorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_room(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    """Accept a file that is about to be written, or to grow.

    Args:
        folder: Exists, on the disk in question.
        needed_bytes: What is still to be written.
        reserve_bytes: What has to stay free.

    Raises:
        InsufficientStorageError: There is less.
    """
    if shutil.disk_usage(folder).free < needed_bytes + reserve_bytes:
        raise no_room(folder, needed_bytes, reserve_bytes)


def no_room(folder: Path, needed_bytes: int, reserve_bytes: int) -> InsufficientStorageError:
    """Return the error that says what is free and what is needed; for the arguments see ``check_room``."""
    free = shutil.disk_usage(folder).free
    return InsufficientStorageError(
        f"disk: {free} bytes are free, {needed_bytes} more are needed and {reserve_bytes} have to stay free",
        fix="Try again later, or ask the operator to make room on the server's disk.",
    )


def is_full(error: OSError) -> bool:
    """Whether the error says that the disk, or a quota on it, is full."""
    return error.errno in _FULL
