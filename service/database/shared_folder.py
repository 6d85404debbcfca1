"""Whether a folder is the one that all processes of a database see: it and the database hold the same random id.

A folder of another name, or a mount that is missing, is empty or another's: a process that worked on it would fail every job that it takes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from calibration.errors import InvalidConfigError
from service.database.advisory_locks import database_lock
from service.errors import StorageError

ID_NAME = "shared-folder-id"  # of the file with the id


class SharedFolder:
    """The folder of one database. Safe to share between threads."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        """Compare the ids; where there is none yet, this folder becomes the database's.

        Args:
            engine: Of the database that the processes share.
            folder: Which is there.

        Raises:
            InvalidConfigError: It is another folder.
            OSError: It cannot be read or written.
        """
        self._path = folder / ID_NAME
        self._id = agreed_id(engine, self._read, self._path.write_text)
        if self._read() != self._id:
            raise InvalidConfigError(
                f"shared folder {folder}: it is not the one that the other processes of this database see",
                fix=f"Mount that one there, or name it: ONNX_TRT_OPTIMIZER_SHARED_DIR. In a copy of it, {ID_NAME} holds {self._id}.",
            )

    def check(self) -> None:
        """Accept the folder as long as it is still that one.

        Raises:
            StorageError: It is gone, as when a mount is.
        """
        try:
            found = self._read()
        except OSError:
            found = None
        if found != self._id:
            raise StorageError("shared folder: it is not there now", fix="Ask the operator to mount it on this process's machine again.")

    def _read(self) -> str | None:
        """Return the id in the folder; None where there is none."""
        try:
            return self._path.read_text().strip()
        except FileNotFoundError:
            return None


def agreed_id(engine: sa.Engine, read: Callable[[], str | None], write: Callable[[str], object]) -> str:
    """Return the id that the database has; where it has none yet, that of the place, which is written there if need be.

    Args:
        engine: Of the database that the processes share.
        read: Returns the id in the place; None where there is none.
        write: Writes it there.
    """
    with database_lock(engine, "tables"):
        _METADATA.create_all(engine)
        with engine.begin() as connection:
            known = connection.execute(sa.select(_FOLDERS.c.id)).scalar_one_or_none()
            if known is None:
                known = read() or secrets.token_hex(16)  # one of a database that was set up anew keeps its id
                write(known)
                connection.execute(sa.insert(_FOLDERS).values(id=known))
    return str(known)


_METADATA = sa.MetaData()
_FOLDERS = sa.Table("shared_folder", _METADATA, sa.Column("id", sa.String(32), primary_key=True))
