"""What lies in the object store: a row for each object, which says who may still need it.

An object is never removed while anything refers to it, whatever processes do at the same time:

1. Whoever refers to an object (a row of a job's file, of an upload) writes that row in a transaction that holds the object's row
   (``check_there``), which has to say that the object is whole.
2. Whoever removes an object takes the row for itself first, looks for references after, and removes row and object in that transaction.

Between its upload and the row that refers to it an object is kept by its claim: the moment at which somebody last stored or named it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from service.errors import ObjectStoreError
from service.jobs.artifacts import KeptFile
from service.jobs.records import StoredFile

logger = logging.getLogger(__name__)

CLAIM_SECONDS = 3600.0  # longer than it takes to upload the files of a job


class Catalogue:
    """The rows, in the Postgres that all processes share. Safe to share between threads and processes."""

    def __init__(self, engine: sa.Engine, references: Sequence[sa.Column[str]], clock: Callable[[], datetime]) -> None:
        """Create the table where it is missing.

        Args:
            engine: Of the database.
            references: Columns with the digests of objects that somebody needs.
            clock: The present, in UTC.
        """
        self._engine = engine
        self._references = references
        self._clock = clock
        _METADATA.create_all(engine)

    def claim(self, file: StoredFile) -> bool:
        """Keep an object from being removed for a while, and return whether its bytes have yet to be stored."""
        now = self._now()
        new = {"sha256": file.sha256, "size_bytes": file.size_bytes, "state": BEGUN, "claimed_at": now, "used_at": now, "is_upload": False}
        back = sa.case((OBJECTS.c.state == REMOVED, WHOLE), else_=OBJECTS.c.state)  # its bytes are there until its row goes
        statement = insert(OBJECTS).values(new).on_conflict_do_update(index_elements=["sha256"], set_={"claimed_at": now, "state": back})
        with self._engine.begin() as connection:
            state = connection.execute(statement.returning(OBJECTS.c.state)).scalar_one()
        return bool(state != WHOLE)

    def note_stored(self, sha256: str) -> None:
        """Note that the bytes of a claimed object are there.

        Raises:
            ObjectStoreError: It was removed meanwhile, as its claim is long over.
        """
        values = {"state": WHOLE, "claimed_at": self._now()}
        with self._engine.begin() as connection:
            if connection.execute(sa.update(OBJECTS).where(OBJECTS.c.sha256 == sha256).values(values)).rowcount == 0:
                raise _gone(sha256)

    def note_damaged(self, sha256: str) -> None:
        """Note that an object is not what was stored: whoever sends the same bytes again mends it."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(OBJECTS).where(OBJECTS.c.sha256 == sha256, OBJECTS.c.state == WHOLE).values(state=DAMAGED))

    def find(self, sha256: str) -> StoredFile | None:
        """Return a whole object, which is kept from being removed for a while; None where there is none."""
        statement = sa.update(OBJECTS).where(OBJECTS.c.sha256 == sha256, OBJECTS.c.state == WHOLE).values(claimed_at=self._now())
        with self._engine.begin() as connection:
            size = connection.execute(statement.returning(OBJECTS.c.size_bytes)).scalar_one_or_none()
        return None if size is None else StoredFile(sha256, int(size))

    def state(self, sha256: str) -> str | None:
        """Return the state of an object; None where there is none, or where its bytes have yet to be stored or to be removed."""
        query = sa.select(OBJECTS.c.state).where(OBJECTS.c.sha256 == sha256)
        with self._engine.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return found if found in {WHOLE, DAMAGED} else None

    def mark_upload(self, sha256: str) -> None:
        """Note that somebody uploaded or named a whole object just now."""
        values = {"is_upload": True, "used_at": self._now()}
        with self._engine.begin() as connection:
            connection.execute(sa.update(OBJECTS).where(OBJECTS.c.sha256 == sha256, OBJECTS.c.state == WHOLE).values(values))

    def is_upload(self, sha256: str) -> bool:
        """Whether somebody uploaded it."""
        query = sa.select(OBJECTS.c.is_upload).where(OBJECTS.c.sha256 == sha256, OBJECTS.c.state == WHOLE)
        with self._engine.connect() as connection:
            return bool(connection.execute(query).scalar_one_or_none())

    def files(self) -> Iterator[KeptFile]:
        """Give every whole object."""
        query = sa.select(OBJECTS.c.sha256, OBJECTS.c.size_bytes, OBJECTS.c.used_at).where(OBJECTS.c.state == WHOLE)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        yield from (KeptFile(*row) for row in rows)

    def remove(self, sha256: str) -> None:
        """Let an object be found no longer, unless somebody refers to it; ``collect`` removes it."""
        with self._engine.begin() as connection:
            row = sa.select(OBJECTS.c.state).where(OBJECTS.c.sha256 == sha256).with_for_update()
            if connection.execute(row).first() is not None and not self._is_needed(connection, sha256):
                connection.execute(sa.update(OBJECTS).where(OBJECTS.c.sha256 == sha256).values(state=REMOVED, is_upload=False))

    def check_there(self, connection: sa.Connection, sha256s: Collection[str]) -> None:
        """Keep objects until the end of a transaction, which refers to them.

        Raises:
            ObjectStoreError: One is not there; storing it again mends that.
        """
        held = sa.select(OBJECTS.c.sha256).where(OBJECTS.c.sha256.in_(sha256s), OBJECTS.c.state == WHOLE)
        found = set(connection.execute(held.with_for_update(read=True, key_share=True)).scalars())
        for sha256 in sorted(set(sha256s) - found):
            raise _gone(sha256)

    def collect(self, delete: Callable[[str], None], seconds: float = CLAIM_SECONDS) -> tuple[str, ...]:
        """Remove the objects to which nothing refers, whose claims are over, and return their digests.

        Args:
            delete: Removes the object of a digest from the store.
            seconds: How long a claim holds.

        Raises:
            ObjectStoreError: The store cannot be used now; the rest is removed at the next call.
        """
        until = self._now() - seconds
        idle = sa.select(OBJECTS.c.sha256).where(OBJECTS.c.claimed_at <= until, *(~_in(column) for column in self._references))
        with self._engine.connect() as connection:
            found = connection.execute(idle.limit(_MOST_AT_ONCE)).scalars().all()
        return tuple(sha256 for sha256 in found if self._collected(sha256, until, delete))

    def _collected(self, sha256: str, until: float, delete: Callable[[str], None]) -> bool:
        # In two steps: should the second fail half-way, the row says already that the bytes may not be there.
        with self._engine.begin() as connection:
            if not self._is_idle(connection, sha256, until):
                return False
            connection.execute(sa.update(OBJECTS).where(OBJECTS.c.sha256 == sha256).values(state=BEGUN))
        with self._engine.begin() as connection:
            if not self._is_idle(connection, sha256, until):
                return False
            delete(sha256)
            connection.execute(sa.delete(OBJECTS).where(OBJECTS.c.sha256 == sha256))
        return True

    def _is_idle(self, connection: sa.Connection, sha256: str, until: float) -> bool:
        """Whether nobody needs an object, whose row is held from now on."""
        row = sa.select(OBJECTS.c.sha256).where(OBJECTS.c.sha256 == sha256, OBJECTS.c.claimed_at <= until)
        is_held = connection.execute(row.with_for_update(skip_locked=True)).first() is not None
        return is_held and not self._is_needed(connection, sha256)

    def _is_needed(self, connection: sa.Connection, sha256: str) -> bool:
        """Whether anything refers to it, by a statement of its own: it sees what was committed while the row was waited for."""
        needed = sa.or_(*(sa.exists().where(column == sha256) for column in self._references))
        return bool(connection.execute(sa.select(needed)).scalar_one())

    def _now(self) -> float:
        return self._clock().timestamp()


def _in(column: sa.Column[str]) -> sa.Exists:
    return sa.exists().where(column == OBJECTS.c.sha256)


def _gone(sha256: str) -> ObjectStoreError:
    return ObjectStoreError(f"object store: sha256:{sha256} was removed meanwhile", fix="Try again: it is stored anew.")


BEGUN, WHOLE, DAMAGED, REMOVED = "begun", "whole", "damaged", "removed"
_MOST_AT_ONCE = 1000
_METADATA = sa.MetaData()
OBJECTS = sa.Table(
    "objects",
    _METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("claimed_at", sa.Float, nullable=False, index=True),
    sa.Column("used_at", sa.Float, nullable=False),
    sa.Column("is_upload", sa.Boolean, nullable=False),
)
