"""Who wants to be told that a job has ended, and how far that is: kept with the job, so that a restart forgets nobody."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from service.jobs.job_table import JOBS
from service.jobs.records import JobState, Webhook


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A message to send now."""

    job_id: str
    webhook: Webhook
    attempts: int  # before this one


class Webhooks:
    """A row for each message that is still to be sent. Safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the table where it is missing."""
        self._engine = engine
        _METADATA.create_all(engine)

    def add(self, connection: sa.Connection, job_id: str, webhook: Webhook) -> None:
        """Note a wish, in the transaction that creates its job."""
        connection.execute(sa.insert(_WEBHOOKS).values(job_id=job_id, url=webhook.url, secret=webhook.secret, attempts=0, next_at=0.0))

    def due(self, now: float) -> tuple[DueWebhook, ...]:
        """Return the messages whose job has ended and whose time has come; ``now`` is in seconds since 1970."""
        finished = [state.value for state in JobState if state.is_finished]
        joined = sa.select(_WEBHOOKS).join(JOBS, JOBS.c.id == _WEBHOOKS.c.job_id)
        query = joined.where(JOBS.c.state.in_(finished), _WEBHOOKS.c.next_at <= now).order_by(_WEBHOOKS.c.next_at)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(DueWebhook(row["job_id"], Webhook(row["url"], row["secret"]), row["attempts"]) for row in rows)

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


_METADATA = sa.MetaData()
_WEBHOOKS = sa.Table(
    "webhooks",
    _METADATA,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("secret", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
)
