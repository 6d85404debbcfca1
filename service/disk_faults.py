"""Tells faults of the disk (full, read-only, failing) from faults of a stage: their cause goes away, and the stage can run again then."""

from __future__ import annotations

import errno
import os

ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
SIGNS = tuple(os.strerror(number) for number in sorted(ERRNOS))  # as native libraries put it into words of their own
EXIT_STATUS = 74  # EX_IOERR of sysexits.h: a stage that could not even write down what went wrong
FIX = "Make room on the disk or mend it; a job on a server goes on by itself then, a command goes on when it is run again."


def is_storage_fault(error: BaseException) -> bool:
    """Whether an error says that the disk, or a quota on it, is full, that it is read-only, or that it fails."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in ERRNOS
    return has_storage_sign(str(error))


def has_storage_sign(text: str) -> bool:
    """Whether a text of another library says so."""
    return any(sign in text for sign in SIGNS)
