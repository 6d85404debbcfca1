"""The right of one process to work under its name: a lock that a session of Postgres holds.

The server ends a session that is silent for ``seconds`` (``idle_session_timeout``, since Postgres 14), so that the lock of a process that
is dead, stands still or is cut off is free by then, whatever the network does. The process itself counts its lease as gone earlier, by its
own clock, so that it has stopped when another one may begin. A lease that was lost and taken again is another one, with the next number:
work that was begun under the one before goes on under no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from calibration.errors import InvalidConfigError
from service.database.advisory_locks import lock_key
from service.database.engine import open_session
from service.errors import ProcessNameInUseError, StorageError

logger = logging.getLogger(__name__)


class Lease:
    """The lease of this process. Safe to share between threads."""

    def __init__(self, url: str, name: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Hold nothing yet.

        Args:
            url: SQLAlchemy URL of a Postgres.
            name: Of this process; one at a time may work under it.
            seconds: After so much silence the server frees the lock; above 0.
            clock: Gives seconds that never go back.
        """
        self.name, self.seconds = name, seconds
        self._url, self._clock = url, clock
        self._session: sa.Connection | None = None
        self._pid = 0  # of the session, as the server counts
        self._known = threading.Lock()
        self._number: int | None = None  # None: not held
        self._numbers = 0
        self._seen = -float("inf")  # when the question was asked that the server answered last
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease, and keep it until ``close``. Waits as long as that of a process of this name that has died may last.

        Raises:
            ProcessNameInUseError: Another process works under this name.
            StorageError: The database cannot be reached.
            InvalidConfigError: It is older than Postgres 14.
        """
        until = self._clock() + self.seconds + _MARGIN_SECONDS
        while not self._taken():
            if self._clock() >= until:
                raise ProcessNameInUseError(
                    f"process {self.name!r}: another one works under this name",
                    fix="Stop it, or give this one a name of its own: ONNX_TRT_OPTIMIZER_EXECUTOR_ID.",
                )
            time.sleep(_RETRY_SECONDS)
        self._thread.start()

    def number(self) -> int | None:
        """Return the number of the lease, from 1; None where it is lost, or where nobody knows for the moment."""
        with self._known:
            return self._number if self._clock() - self._seen < self.seconds * _SAFE_SHARE else None

    def close(self) -> None:
        """Give the lease back."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._drop()

    def _tend(self) -> None:
        """Ask the server again and again whether the session lives; take the lease anew where it does not."""
        while not self._closing.wait(_RETRY_SECONDS if self._session is None else self.seconds * _ASK_SHARE):
            try:
                if self._session is not None:
                    self._ask(self._session)
                elif self._taken():
                    logger.warning("process %s: its lease is taken anew; what it had begun goes on where it was", self.name)
            except StorageError as error:
                if self._session is not None:
                    logger.error("process %s: its lease is lost (%s); its work stops until it has one again", self.name, error.detail)
                self._drop()
            except Exception:
                logger.exception("process %s: its lease cannot be tended; this is tried again", self.name)
                self._drop()

    def _taken(self) -> bool:
        """Open a session and try to take the lock."""
        asked = self._clock()
        session = open_session(self._url)
        try:
            try:
                session.execute(sa.text(f"SET idle_session_timeout = {round(self.seconds * 1000)}"))
            except sa.exc.DBAPIError as exc:
                raise InvalidConfigError(
                    "database: found a Postgres that cannot end silent sessions, expected version 14 or later", fix="Upgrade the server."
                ) from exc
            is_held = session.execute(sa.select(sa.func.pg_try_advisory_lock(lock_key(self.name)))).scalar_one()
            pid = session.execute(sa.select(sa.func.pg_backend_pid())).scalar_one()
        except BaseException:
            _close(session)
            raise
        if not is_held:
            _close(session)
            return False
        with self._known:
            self._session, self._pid, self._seen = session, pid, asked
            self._numbers += 1
            self._number = self._numbers
        return True

    def _ask(self, session: sa.Connection) -> None:
        asked = self._clock()
        if session.execute(sa.select(sa.func.pg_backend_pid())).scalar_one() != self._pid:
            raise StorageError("database: its sessions change", fix="Connect to Postgres itself, or through a pool that keeps sessions.")
        with self._known:
            self._seen = asked

    def _drop(self) -> None:
        with self._known:
            session, self._session, self._number = self._session, None, None
        if session is not None:
            _close(session)


def _close(session: sa.Connection) -> None:
    session.invalidate()  # not given back politely: the network may be gone
    session.close()
    session.engine.dispose()


_ASK_SHARE = 0.2  # of the lease's seconds: between two questions
_SAFE_SHARE = 0.65  # after so much without an answer the process counts its lease as gone; the server does later
_RETRY_SECONDS = 0.5
_MARGIN_SECONDS = 3.0
_JOIN_SECONDS = 2.0
