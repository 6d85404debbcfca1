"""Who wants to be told that a job has ended, and how far that is: kept with the job, so that a restart forgets nobody.

An address may be as secret as what messages are signed with: both are encrypted, for this job alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from service.access.encryption import Encryption
from service.database.advisory_locks import database_lock
from service.database.engine import is_postgres
from service.errors import EncryptionKeyError
from service.jobs.job_table import JOBS
from service.jobs.records import JobState, Webhook


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A message to send now."""

    job_id: str
    token: str  # its webhook, encrypted
    attempts: int  # before this one


class Webhooks:
    """A row for each message that is still to be sent. Safe to share between threads."""

    def __init__(self, engine: sa.Engine, encryption: Encryption | None) -> None:
        """Create the table where it is missing.

        Args:
            engine: Of the database.
            encryption: Without it there are no messages.
        """
        self._engine = engine
        self._encryption = encryption
        _METADATA.create_all(engine)
        self._has_plain = sa.inspect(engine).has_table(PLAIN_WEBHOOKS.name)

    def encrypted(self, job_id: str, webhook: Webhook) -> str:
        """Return what is kept of a wish.

        Raises:
            EncryptionKeyError: There is no key that can be used.
            StorageError: The key cannot be read or made now.
        """
        encryption = self._of_webhooks()
        if not encryption.has_key():
            with database_lock(self._engine, KEY_LOCK):
                encryption.make_key()
        return encryption.encrypt(json.dumps(asdict(webhook)), _purpose(job_id))

    def add(self, connection: sa.Connection, job_id: str, token: str) -> None:
        """Note a wish, in the transaction that creates its job."""
        connection.execute(sa.insert(_WEBHOOKS).values(job_id=job_id, token=token, attempts=0, next_at=0.0))

    def due(self, now: float) -> tuple[DueWebhook, ...]:
        """Return the messages whose job has ended and whose time has come; ``now`` is in seconds since 1970."""
        finished = [state.value for state in JobState if state.is_finished]
        joined = sa.select(_WEBHOOKS).join(JOBS, JOBS.c.id == _WEBHOOKS.c.job_id)
        query = joined.where(JOBS.c.state.in_(finished), _WEBHOOKS.c.next_at <= now).order_by(_WEBHOOKS.c.next_at)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(DueWebhook(row["job_id"], row["token"], row["attempts"]) for row in rows)

    def read(self, due: DueWebhook) -> Webhook:
        """Return where a message goes.

        Raises:
            EncryptionKeyError: The key is lost, or it is another job's.
            StorageError: The key cannot be read now.
        """
        return Webhook(**json.loads(self._of_webhooks().decrypt(due.token, _purpose(due.job_id))))

    def put_off(self, job_id: str, until: float) -> None:
        """Count an attempt that failed; the next one is due at ``until``, in seconds since 1970."""
        values = {"attempts": _WEBHOOKS.c.attempts + 1, "next_at": until}
        with self._engine.begin() as connection:
            connection.execute(sa.update(_WEBHOOKS).where(_WEBHOOKS.c.job_id == job_id).values(values))

    def forget(self, job_id: str) -> None:
        """Forget a message: it was sent, or is given up."""
        with self._engine.begin() as connection:
            self.remove(connection, job_id)

    def remove(self, connection: sa.Connection, job_id: str) -> None:
        """Forget a message, in the transaction that removes its job."""
        connection.execute(sa.delete(_WEBHOOKS).where(_WEBHOOKS.c.job_id == job_id))
        if self._has_plain:
            connection.execute(sa.delete(PLAIN_WEBHOOKS).where(PLAIN_WEBHOOKS.c.job_id == job_id))

    def renew(self) -> tuple[str, ...]:
        """Encrypt anew what an earlier key encrypted, and return the jobs whose key is lost.

        Raises:
            EncryptionKeyError: There is no key at all that can be used.
            StorageError: The keys cannot be read now.
        """
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_WEBHOOKS.c.job_id, _WEBHOOKS.c.token)).all()
        if rows:
            self._of_webhooks().check_key()
        lost = []
        for job_id, token in rows:
            try:
                renewed = self._of_webhooks().renewed(token)
            except EncryptionKeyError:
                lost.append(job_id)
                continue
            if renewed is not None:
                with self._engine.begin() as connection:
                    is_same = (_WEBHOOKS.c.job_id == job_id, _WEBHOOKS.c.token == token)
                    connection.execute(sa.update(_WEBHOOKS).where(*is_same).values(token=renewed))
        return tuple(lost)

    def expect_plain(self) -> None:
        """Create the table of an earlier version, whose rows are about to come."""
        PLAIN_WEBHOOKS.create(self._engine, checkfirst=True)
        self._has_plain = True

    def encrypt_plain(self) -> int:
        """Encrypt what an earlier version left plain, or another process of one leaves, and return of how many jobs.

        Raises:
            EncryptionKeyError: There is no key that can be used; all stays as it is.
            StorageError: The key or the database cannot be used now.
        """
        if not self._has_plain:
            return 0
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(PLAIN_WEBHOOKS)).mappings().all()
        for row in rows:
            token = self.encrypted(row["job_id"], Webhook(row["url"], row["secret"]))
            self._move(row, token)
        if rows:
            self._wipe()
        return len(rows)

    def _move(self, row: sa.RowMapping, token: str) -> None:
        with self._engine.begin() as connection:
            if not is_postgres(self._engine):
                connection.exec_driver_sql("PRAGMA secure_delete=ON")  # of this connection: what is deleted is overwritten
            is_this = PLAIN_WEBHOOKS.c.job_id == row["job_id"]
            if connection.execute(sa.delete(PLAIN_WEBHOOKS).where(is_this)).rowcount:  # else another process was faster
                values = {"job_id": row["job_id"], "token": token, "attempts": row["attempts"], "next_at": row["next_at"]}
                connection.execute(sa.insert(_WEBHOOKS).values(values))

    def _wipe(self) -> None:
        """Let no file of the database hold what was deleted."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if is_postgres(self._engine):
                connection.exec_driver_sql(f"VACUUM {PLAIN_WEBHOOKS.name}")
            else:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _of_webhooks(self) -> Encryption:
        assert self._encryption is not None, "a store of jobs that has webhooks was opened without their encryption"
        return self._encryption


def _purpose(job_id: str) -> str:
    return f"webhook of job {job_id}"


KEY_LOCK = "encryption key"  # of the database: who makes or replaces the key holds it
_METADATA = sa.MetaData()
_WEBHOOKS = sa.Table(
    "encrypted_webhooks",
    _METADATA,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
)
PLAIN_WEBHOOKS = sa.Table(  # of earlier versions, which a newer one creates no more
    "webhooks",
    sa.MetaData(),
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("secret", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
)
