"""What can be asked of the jobs table: one job, lists of them, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from service.access.tenants import Tenants
from service.errors import InvalidRequestError, NotFoundError, RemovedError
from service.jobs.job_table import IS_OWN, IS_RUN, JOBS, ROW_COLUMNS, job_from_row, row_from_row
from service.jobs.live.removed import RemovedJobs
from service.jobs.records import Job, JobRow, JobState
from service.jobs.storage.holds import Holds


class JobReader:
    """Reads jobs. Safe to share between threads."""

    def __init__(self, engine: sa.Engine, holds: Holds, removed: RemovedJobs, tenants: Tenants) -> None:
        """Read from a database that has the table.

        Args:
            engine: Of the database.
            holds: The jobs that wait for it.
            removed: The jobs that are there no more.
            tenants: Whose jobs they are.
        """
        self._engine = engine
        self._removed = removed
        self.holds = holds
        self.tenants = tenants

    def find_by_key(self, tenant: str, key: str | None, request_sha256: str) -> Job | None:
        """Return the job of a tenant that an idempotency key made, if there is one.

        Raises:
            InvalidRequestError: The key was used for another request.
        """
        if key is None:
            return None
        found = self._select(sa.select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.request_key == key))
        if not found:
            return None
        if found[0].new.request_sha256 != request_sha256:
            raise InvalidRequestError(
                f"Idempotency-Key {key!r}: it was used for another request (job {found[0].id})",
                fix="Use a new key for a new request, or repeat the first request unchanged.",
            )
        return found[0]

    def knows_key(self, tenant: str, key: str) -> bool:
        """Whether an idempotency key of a tenant made a job."""
        with self._engine.connect() as connection:
            query = sa.select(JOBS.c.sequence).where(JOBS.c.tenant == tenant, JOBS.c.request_key == key)
            return connection.execute(query).first() is not None

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        """Return the job.

        Args:
            job_id: Its id.
            tenant: Only if it is this tenant's: another's is told apart from none by nothing. None: whosever it is.

        Raises:
            NotFoundError: There is none with this id, or there was one of which is told no more.
            RemovedError: There was one, which was removed.
        """
        of_tenant = {} if tenant is None else {"of_tenant": tenant}
        found = self._select(_BY_ID_OF_TENANT if of_tenant else _BY_ID, {"job_id": job_id, **of_tenant})
        if not found:
            raise self._missing(job_id, tenant)
        return found[0]

    def state(self, job_id: str, tenant: str | None = None) -> JobState:
        """Return the job's state only: the cheap question that a running job asks often; for the arguments see ``get``."""
        query = sa.select(JOBS.c.state).where(JOBS.c.id == job_id, *_of_tenant(tenant))
        with self._engine.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise self._missing(job_id, tenant)
        return JobState(found)

    def tenant_apart(self, job_id: str) -> str | None:
        """Return the tenant of a job, where it shares no measurements with others; None where it does, or there is no such job."""
        query = sa.select(JOBS.c.tenant).where(JOBS.c.id == job_id)
        with self._engine.connect() as connection:
            tenant = connection.execute(query).scalar_one_or_none()
        return None if tenant is None or self.tenants.get(tenant).shares_measurements else tenant

    def list(self, *, states: Sequence[JobState] = (), limit: int | None = None, before: int | None = None) -> tuple[Job, ...]:
        """Return jobs, newest first.

        Args:
            states: Only these; empty means all.
            limit: At most so many.
            before: Only jobs whose ``sequence`` is lower.
        """
        query = sa.select(JOBS).order_by(JOBS.c.sequence.desc())
        if states:
            query = query.where(self._is_shown_as(states))
        if before is not None:
            query = query.where(JOBS.c.sequence < before)
        return self._select(query if limit is None else query.limit(limit))

    def rows(
        self, *, states: Sequence[JobState] = (), limit: int, before: int | None = None, tenant: str | None = None
    ) -> tuple[JobRow, ...]:
        """Return jobs as a list shows them, newest first, of one tenant or of all; no branches. For the other arguments see ``list``."""
        page = sa.select(JOBS.c.sequence).where(IS_OWN, *_of_tenant(tenant)).order_by(JOBS.c.sequence.desc()).limit(limit)
        if states:
            page = page.where(self._is_shown_as(states))
        if before is not None:
            page = page.where(JOBS.c.sequence < before)
        on_page = page.subquery()  # so that whatever way is taken to it, results, which may be long, are read for its jobs alone
        columns = [JOBS.c[name] for name in ROW_COLUMNS]
        facts = [JOBS.c.result[name].label(name) for name in ("outcome", "speedup", "predicted_speedup")]
        query = sa.select(*columns, *facts).join(on_page, on_page.c.sequence == JOBS.c.sequence).order_by(JOBS.c.sequence.desc())
        with self._engine.connect() as connection:
            return tuple(row_from_row(row, self.holds.find(row["id"])) for row in connection.execute(query).mappings())

    def branches(self, job_id: str) -> tuple[Job, ...]:
        """Return the branches of a job, in the order in which they were written: that of its types of GPU."""
        return self._select(sa.select(JOBS).where(JOBS.c.parent == job_id).order_by(JOBS.c.sequence))

    def running_ids(self) -> frozenset[str]:
        """Return the ids of running jobs on which a worker should be at work."""
        with self._engine.connect() as connection:
            return frozenset(connection.execute(sa.select(JOBS.c.id).where(IS_RUN, JOBS.c.state == JobState.RUNNING.value)).scalars())

    def finished_before(self, moment: float) -> tuple[tuple[str, float], ...]:
        """Return the id of each job that was finished before a moment, and when it was, the oldest first; seconds since 1970.

        Branches go with their job.
        """
        finished = [state.value for state in JobState if state.is_finished]
        query = sa.select(JOBS.c.id, JOBS.c.finished_at).where(IS_OWN, JOBS.c.state.in_(finished), JOBS.c.finished_at < moment)
        with self._engine.connect() as connection:
            return tuple((row.id, row.finished_at) for row in connection.execute(query.order_by(JOBS.c.finished_at)))

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state that any is in; of one with branches these are counted."""
        shown = sa.case((self._waits(), JobState.ON_HOLD.value), else_=JOBS.c.state).label("shown")
        query = sa.select(shown, sa.func.count()).where(IS_RUN).group_by(shown)
        with self._engine.connect() as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    def durations(self) -> dict[JobState, tuple[int, float]]:
        """Return how many jobs that ran ended in each state, and the seconds that they took together."""
        seconds = sa.func.sum(JOBS.c.finished_at - JOBS.c.started_at)
        ran = (IS_RUN, JOBS.c.started_at.is_not(None), JOBS.c.finished_at.is_not(None))
        query = sa.select(JOBS.c.state, sa.func.count(), seconds).where(*ran).group_by(JOBS.c.state)
        with self._engine.connect() as connection:
            return {JobState(state): (count, float(total)) for state, count, total in connection.execute(query)}

    def _missing(self, job_id: str, tenant: str | None = None) -> NotFoundError | RemovedError:
        return self._removed.error(job_id, tenant) or NotFoundError(
            f"job {job_id!r}: there is no such job, or it was removed long ago", fix="List the jobs with GET /v1/jobs."
        )

    def _select(self, query: sa.Select[tuple[object, ...]], values: Mapping[str, object] | None = None) -> tuple[Job, ...]:
        with self._engine.connect() as connection:
            return tuple(job_from_row(row, self.holds.find(row["id"])) for row in connection.execute(query, values).mappings())

    def _is_shown_as(self, states: Sequence[JobState]) -> sa.ColumnElement[bool]:
        """Return the condition that a job is in one of these states; an unfinished one that waits is on hold, whatever its row says."""
        if all(state is JobState.ON_HOLD for state in states):
            return self._waits()
        noted = sa.and_(JOBS.c.state.in_([state.value for state in states]), sa.not_(self._waits()))
        return sa.or_(noted, self._waits()) if JobState.ON_HOLD in states else noted

    def _waits(self) -> sa.ColumnElement[bool]:
        return sa.and_(JOBS.c.id.in_(self.holds.ids()), JOBS.c.state.in_(_UNFINISHED))


def _of_tenant(tenant: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    return () if tenant is None else (JOBS.c.tenant == tenant,)


# Asked at every look at a job, so built once.
_BY_ID = sa.select(JOBS).where(JOBS.c.id == sa.bindparam("job_id"))
_BY_ID_OF_TENANT = _BY_ID.where(JOBS.c.tenant == sa.bindparam("of_tenant"))
_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
