"""Which job is next: shares between tenants first, then each tenant's own priorities.

1. Only tenants with fewer running jobs than the operator allows.
2. Of these the tenant with the fewest running jobs; among equals the one whose last job began longest ago.
3. Of its jobs the one with the highest priority; among equals the one that was submitted first.

A priority orders a tenant's own jobs alone: nobody gets ahead of others by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from service.jobs.job_table import IS_RUN, JOBS
from service.jobs.records import JobState


def next_in_line(engine: sa.Engine, taken: Collection[str], most_running: int | None) -> str | None:
    """Return the id of the queued job that is to run next; None where there is none.

    Args:
        engine: Of the jobs' database.
        taken: Ids of jobs that a worker has, or is about to have; a queued one of them counts as running.
        most_running: So many jobs of one tenant may run at the same time; None: any number.
    """
    with engine.connect() as connection:
        heads = connection.execute(_heads(taken)).all()
        if not heads:
            return None
        running: Counter[str] = Counter()
        is_taken = sa.and_(JOBS.c.state == JobState.QUEUED.value, JOBS.c.id.in_(taken))
        busy = (
            sa.select(JOBS.c.tenant, sa.func.count())
            .where(IS_RUN, sa.or_(JOBS.c.state == JobState.RUNNING.value, is_taken))
            .group_by(JOBS.c.tenant)
        )
        for tenant, count in connection.execute(busy):
            running[tenant] = count
    allowed = [head for head in heads if most_running is None or running[head.tenant] < most_running]
    order = sorted(allowed, key=lambda head: (running[head.tenant], head.began or 0.0, head.sequence))
    return str(order[0].id) if order else None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Whether there are jobs that wait, and jobs that run."""

    anyone_waits: bool
    anyone_runs: bool


def traffic(engine: sa.Engine) -> Traffic:
    """Return what is going on: the cheap question that every free worker asks again and again."""
    waits, runs = (sa.select(JOBS.c.sequence).where(JOBS.c.state == state.value).exists() for state in (JobState.QUEUED, JobState.RUNNING))
    with engine.connect() as connection:
        found = connection.execute(sa.select(waits.label("waits"), runs.label("runs"))).one()
    return Traffic(bool(found.waits), bool(found.runs))


def _heads(taken: Collection[str]) -> sa.Select[tuple[str, str, int, float | None]]:
    """Return the query for the first queued job of each tenant, and when a job of that tenant last began.

    Some steps in an index for each tenant, however many jobs wait and however many there ever were.
    """
    tenants = sa.select(JOBS.c.tenant).where(JOBS.c.state == JobState.QUEUED.value).distinct().subquery()
    first = (
        sa.select(JOBS.c.id)
        .where(JOBS.c.state == JobState.QUEUED.value, JOBS.c.tenant == tenants.c.tenant, IS_RUN, JOBS.c.id.not_in(taken))
        .order_by(JOBS.c.priority.desc(), JOBS.c.sequence)
        .limit(1)
        .correlate(tenants)
        .scalar_subquery()
    )
    theirs, head = JOBS.alias(), JOBS.alias()
    began = sa.select(sa.func.max(theirs.c.started_at)).where(theirs.c.tenant == tenants.c.tenant).scalar_subquery()
    found = sa.select(head.c.id, head.c.tenant, head.c.sequence, began.label("began"))
    return found.select_from(tenants.join(head, head.c.id == first))
