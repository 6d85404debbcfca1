"""Wakes the processes of a database when there may be something to do, so that they need not ask all the time.

LISTEN and NOTIFY of Postgres. Nothing depends on it: whoever listens looks by itself now and then too, and is only later by that where
nobody was heard. https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable

import psycopg
import sqlalchemy as sa

from service.database.engine import is_postgres, open_session
from service.errors import StorageError

logger = logging.getLogger(__name__)


def wake(connection: sa.Connection, channel: str) -> None:
    """Wake whoever listens on a channel, once the transaction is committed; on SQLite nobody does."""
    if is_postgres(connection.engine):
        connection.execute(sa.select(sa.func.pg_notify(channel, "")))


class WakeUps:
    """Calls a function whenever somebody wakes a channel; a thread of its own, which outlasts restarts of the database."""

    def __init__(self, url: str, channel: str, on_wake: Callable[[], None]) -> None:
        """Prepare; ``start`` starts.

        Args:
            url: SQLAlchemy URL of a Postgres.
            channel: A name in SQL.
            on_wake: Is called for each time that the channel is woken, or once for several, and whenever the connection is opened anew.
        """
        self._url, self._channel, self._on_wake = url, channel, on_wake
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Listen no longer."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (StorageError, psycopg.Error) as error:
                logger.info("wake-ups are not heard for now: %s", error)
            except Exception:
                logger.exception("wake-ups are not heard for now")
            self._closing.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        session = open_session(self._url)
        try:
            session.execute(sa.text(f"LISTEN {self._channel}"))
            connection = session.connection.driver_connection
            assert isinstance(connection, psycopg.Connection)
            poller = select.poll()
            poller.register(connection.fileno(), select.POLLIN)
            self._on_wake()  # nobody was heard until now
            while not self._closing.is_set():
                if poller.poll(_LOOK_MS) and any(connection.notifies(timeout=0)):
                    self._on_wake()
        finally:
            session.invalidate()  # it is not given back politely: the network may be gone
            session.close()
            session.engine.dispose()


_LOOK_MS = 500  # between two looks at whether to end
_RETRY_SECONDS = 1.0
_JOIN_SECONDS = 2.0
