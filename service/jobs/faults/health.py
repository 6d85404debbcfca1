"""Whether the disk and the database can be used now: asked by whoever waits for them, and by those who ask whether the server is ready."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.database.storage_errors import storage_error
from service.disk_room import no_room
from service.errors import DatabaseBusyError, StorageError
from service.jobs.resources import Deps
from service.settings import Settings


def storage_problem(deps: Deps, *, for_uploads: bool = False) -> StorageError | None:
    """Return what is wrong with the disk or the database; None where jobs can run. Writes a little to each.

    Args:
        deps: The server's belongings.
        for_uploads: Whether there has to be the room that uploads leave free (``min_free_bytes``), too.
    """
    least_bytes = deps.settings.min_free_bytes if for_uploads else min(deps.settings.min_free_bytes, LEAST_FREE_BYTES)
    try:
        deps.check_files()
        for folder in _folders(deps.settings):
            if shutil.disk_usage(folder).free < least_bytes:
                return no_room(folder, 0, least_bytes)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
    except StorageError as exc:
        return exc
    except OSError as exc:
        return storage_error(exc) or StorageError(f"disk: {exc.strerror}", fix="Look at the server's data folder.")
    try:
        deps.store.check_writable()
    except StorageError as exc:
        return exc
    return None


def is_passing(problem: StorageError) -> bool:
    """Whether what is wrong is over in seconds by itself, so that nobody has to be told that the server is not ready."""
    return isinstance(problem, DatabaseBusyError)


def _folders(settings: Settings) -> Iterator[Path]:
    """Yield the data folder, and those of files, each of which may lie on a disk of its own."""
    yield settings.data_dir
    yield from (folder for name in ("jobs", "store") if (folder := settings.files_dir / name).is_dir())


LEAST_FREE_BYTES = 16 * 2**20  # with less, a job on hold stays so
_PROBE_BYTES = 2**16
