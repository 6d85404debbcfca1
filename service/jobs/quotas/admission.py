"""Whether a tenant may run one more job: decided in the transaction that writes the job, so that two cannot take the last place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from service.access.limits import Limits, Used, check_limit
from service.access.tenants import Counted, Tenants
from service.jobs.job_table import IS_RUN, JOBS
from service.jobs.quotas.file_owners import FileOwners
from service.jobs.records import JobState


class Admission:
    """Counts what tenants use. Safe to share between threads and processes: the database is the only state."""

    def __init__(self, engine: sa.Engine, tenants: Tenants, owners: FileOwners, clock: Callable[[], datetime]) -> None:
        """Count in a database that has the tables of jobs.

        Args:
            engine: Of the database.
            tenants: Their limits, and what they used by day.
            owners: Who stored what.
            clock: The present, in UTC.
        """
        self._engine = engine
        self._tenants = tenants
        self._owners = owners
        self._clock = clock

    def check(self, tenant: str) -> None:
        """Refuse before anything is read what would surely be refused afterwards; the place is not taken.

        Raises:
            QuotaExceededError: The tenant may submit no job now.
        """
        limits = self._tenants.get(tenant).limits
        if limits.given():
            with self._engine.connect() as connection:
                _check(_ALWAYS, limits, self._used(connection, tenant), self._clock())

    def admit(self, connection: sa.Connection, tenant: str, *, opens_gpu: bool, jobs: int = 1) -> None:
        """Count one more job of a tenant, or several, in the transaction that writes them.

        Args:
            connection: Nothing was written or read in its transaction.
            tenant: Whose job it is.
            opens_gpu: Whether its minutes are those of a GPU.
            jobs: How many: one for each type of GPU.

        Raises:
            QuotaExceededError: The tenant may not submit it; the transaction is to end.
        """
        limits, now = self._tenants.locked(connection, tenant), self._clock()
        if limits.given():
            kind = "gpu" if opens_gpu else "cpu"
            names = (*_ALWAYS, f"{kind}_minutes_per_day", f"{kind}_minutes_per_month")
            used = self._used(connection, tenant)
            _check(names, limits, used, now)
            for name in ("jobs_at_once", "jobs_per_day"):
                check_limit(name, used.of(name), getattr(limits, name), now, more=jobs)
        self._tenants.add(connection, tenant, now, Counted(jobs=jobs))

    def usage(self, tenant: str) -> tuple[Limits, Used]:
        """Return a tenant's limits and what it uses of them."""
        limits = self._tenants.get(tenant).limits
        with self._engine.connect() as connection:
            return limits, self._used(connection, tenant)

    def charge(self, job_id: str, seconds: float, *, on_gpu: bool) -> None:
        """Count the seconds that a stage of a job ran for the job's tenant; of a job that is there no more they are lost."""
        with self._engine.connect() as connection:
            tenant = connection.execute(sa.select(JOBS.c.tenant).where(JOBS.c.id == job_id)).scalar_one_or_none()
        if tenant is not None:
            counted = Counted(gpu_seconds=seconds) if on_gpu else Counted(cpu_seconds=seconds)
            with self._engine.begin() as connection:
                self._tenants.locked(connection, tenant)
                self._tenants.add(connection, tenant, self._clock(), counted)

    def _used(self, connection: sa.Connection, tenant: str) -> Used:
        unfinished = sa.select(sa.func.count()).select_from(JOBS).where(IS_RUN, JOBS.c.tenant == tenant, JOBS.c.state.in_(_UNFINISHED))
        day, month = self._tenants.counted(connection, tenant, self._clock())
        return Used(
            jobs_at_once=int(connection.execute(unfinished).scalar_one()),
            jobs_per_day=day.jobs,
            stored_bytes=self._owners.stored_bytes(connection, tenant),
            gpu_minutes_per_day=day.gpu_seconds / 60,
            gpu_minutes_per_month=month.gpu_seconds / 60,
            cpu_minutes_per_day=day.cpu_seconds / 60,
            cpu_minutes_per_month=month.cpu_seconds / 60,
        )


def _check(names: tuple[str, ...], limits: Limits, used: Used, now: datetime) -> None:
    for name in names:
        check_limit(name, used.of(name), getattr(limits, name), now)


_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
_ALWAYS = ("jobs_at_once", "jobs_per_day", "stored_bytes")  # what holds for a job whatever its target
