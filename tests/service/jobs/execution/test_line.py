from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.jobs.execution.line import Traffic, _heads, next_in_line, traffic
from service.jobs.store import JobStore
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job


class Line:
    """Jobs in a store, which are named after their tenant and the order in which they came."""

    def __init__(self, store: JobStore, clock: FakeClock) -> None:
        self.store, self._clock = store, clock
        self._numbers = itertools.count(1)

    def add(self, tenant: str, priority: int = 0) -> str:
        name = f"{tenant}-{next(self._numbers)}"
        self.store.create(replace(new_job(name), tenant=tenant, priority=priority))
        return name

    def next(self, *taken: str, most: int | None = None) -> str | None:
        return next_in_line(self.store.engine, taken, most)

    def start_next(self, most: int | None = None) -> str:
        found = self.next(most=most)
        assert found is not None
        self._clock.advance(1)
        self.store.start(found)
        return found

    def end(self, job_id: str) -> None:
        self.store.fail(job_id, {}, {})


@pytest.fixture(params=["sqlite", "postgres"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    clock = FakeClock()
    own = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    store = JobStore(own if request.param == "sqlite" else request.getfixturevalue("postgres").create_database(), clock)
    yield Line(store, clock)
    store.close()


def test_what_is_going_on_is_whether_jobs_wait_and_whether_any_run(line: Line) -> None:
    assert traffic(line.store.engine) == Traffic(anyone_waits=False, anyone_runs=False)
    first, second = line.add("a"), line.add("b")
    assert traffic(line.store.engine) == Traffic(anyone_waits=True, anyone_runs=False)
    line.store.start(first)
    assert traffic(line.store.engine) == Traffic(anyone_waits=True, anyone_runs=True)
    line.store.cancel(second)
    assert traffic(line.store.engine) == Traffic(anyone_waits=False, anyone_runs=True)
    line.end(first)
    assert traffic(line.store.engine) == Traffic(anyone_waits=False, anyone_runs=False)


def test_without_tenants_and_priorities_the_first_is_next(line: Line) -> None:
    assert line.next() is None
    first, second = line.add("a"), line.add("a")
    assert line.next() == first
    assert line.next(first) == second
    assert line.next(first, second) is None


def test_a_priority_orders_the_jobs_of_its_tenant_alone(line: Line) -> None:
    early = line.add("a")
    line.add("b", priority=-1)
    urgent = line.add("b", priority=9)
    assert line.start_next() == early
    assert line.start_next() == urgent  # of b's; a's own priority would not have put it before


def test_the_tenant_with_the_fewest_running_jobs_is_next(line: Line) -> None:
    for _ in range(4):
        line.add("a")
    started = [line.start_next(), line.start_next()]
    late = line.add("b")
    assert started == ["a-1", "a-2"]
    assert line.next() == late
    assert line.start_next() == late
    line.end("a-1")
    line.add("b")
    assert line.next() == "a-3"  # both have one; that of b began last


def test_jobs_on_their_way_to_a_worker_count_as_running(line: Line) -> None:
    line.add("a")
    line.add("a")
    late = line.add("b")
    assert line.next("a-1") == late


def test_with_one_worker_tenants_take_turns(line: Line) -> None:
    for tenant in ("a", "a", "a", "b", "b", "c"):
        line.add(tenant)
    order = []
    for _ in range(6):
        order.append(line.start_next())
        line.end(order[-1])
    assert [name.split("-")[0] for name in order] == ["a", "b", "c", "a", "b", "a"]


def test_no_tenant_has_more_running_jobs_than_allowed(line: Line) -> None:
    line.add("a")
    line.add("a")
    line.start_next()
    assert line.next(most=1) is None
    other = line.add("b")
    assert line.start_next(most=1) == other
    assert line.next(most=1) is None
    line.end("a-1")
    assert line.next(most=1) == "a-2"


def test_a_tenants_next_job_and_when_one_last_began_are_steps_in_an_index_whatever_jobs_it_has(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    statement = str(_heads(()).compile(store.engine, compile_kwargs={"literal_binds": True, "render_postcompile": True}))
    with store.engine.connect() as connection:
        plan = [str(row[-1]) for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {statement}"))]
    store.close()
    assert any("ix_jobs_tenant_started (tenant=?)" in line for line in plan), plan
    assert any("ix_jobs_line (state=? AND tenant=?)" in line for line in plan), plan  # the first one that waits
    assert not any("ORDER BY" in line for line in plan), plan  # no sort of all that wait
