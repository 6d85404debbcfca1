"""The part of a bucket that the processes of one database share: whether it is that one, and whether it can be used now."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from calibration.errors import InvalidConfigError
from service.database.shared_folder import ID_NAME, agreed_id
from service.errors import NotFoundError, ObjectStoreError
from service.object_store.objects import Objects


class DeploymentStore:
    """The objects of one database. Safe to share between threads."""

    def __init__(self, engine: sa.Engine, objects: Objects, address: str) -> None:
        """Compare the ids; where there is none yet, this part becomes the database's.

        Args:
            engine: Of the database that the processes share.
            objects: The part.
            address: As the setting names it.

        Raises:
            InvalidConfigError: It is another one.
            ObjectStoreError: It cannot be used now.
        """
        self._objects = objects
        self._probe = f"probes/{secrets.token_hex(8)}"
        self._id = agreed_id(engine, self._read, lambda known: objects.write(ID_NAME, known.encode()))
        if self._read() != self._id:
            raise InvalidConfigError(
                f"object store {address}: it is not the one that the other processes of this database use",
                fix=f"Name that one: ONNX_TRT_OPTIMIZER_OBJECT_STORE. In a copy of it, the object {ID_NAME} holds {self._id}.",
            )

    def check(self) -> None:
        """Accept the store as long as it is still that one, and can be read and written; looks every few seconds only.

        Raises:
            ObjectStoreError: It is not, or cannot.
        """
        self._objects.check(self._look)

    def _look(self) -> None:
        if self._read() != self._id:
            raise ObjectStoreError("object store: what was stored there is gone", fix="Ask the operator to restore it.")
        self._objects.write(self._probe, b"written to see whether it can be")
        self._objects.remove(self._probe)

    def _read(self) -> str | None:
        try:
            return self._objects.read(ID_NAME).decode("ascii", "replace").strip()
        except NotFoundError:
            return None
