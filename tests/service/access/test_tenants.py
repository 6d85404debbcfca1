from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from calibration.errors import InvalidConfigError
from service.access.limits import Limits
from service.access.tenants import Counted, Tenants
from service.database.engine import open_engine
from service.errors import NotFoundError

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'tenants.sqlite'}")
    yield engine
    engine.dispose()


@pytest.fixture
def tenants(engine: sa.Engine) -> Tenants:
    return Tenants(engine)


def test_the_first_tenant_is_there_without_limits(tenants: Tenants, engine: sa.Engine) -> None:
    Tenants(engine)  # a second start
    assert [(tenant.name, tenant.limits, tenant.shares_measurements) for tenant in tenants.list()] == [("default", Limits(), True)]


def test_limits_are_changed_one_by_one(tenants: Tenants) -> None:
    tenants.ensure("vision")
    tenants.change("vision", {"jobs_at_once": 2, "gpu_minutes_per_day": 1.5})
    found = tenants.change("vision", {"jobs_at_once": None, "stored_bytes": 2**40}, shares_measurements=False)
    assert found.limits == Limits(stored_bytes=2**40, gpu_minutes_per_day=1.5)
    assert not found.shares_measurements
    assert tenants.get("default").limits == Limits()


def test_unknown_tenants_and_wrong_limits_are_refused(tenants: Tenants) -> None:
    with pytest.raises(NotFoundError):
        tenants.get("vision")
    with pytest.raises(NotFoundError):
        tenants.change("vision", {"jobs_at_once": 1})
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(InvalidConfigError, match="limit jobs_at_once"):
            tenants.change("default", {"jobs_at_once": wrong})
    with pytest.raises(InvalidConfigError):
        tenants.ensure("%")


def test_what_is_used_is_counted_by_day_and_month(tenants: Tenants, engine: sa.Engine) -> None:
    days = [NOON, NOON.replace(day=28), NOON.replace(month=10)]
    with engine.begin() as connection:
        tenants.locked(connection, "vision")
        for day in (NOON, *days):
            tenants.add(connection, "vision", day, Counted(jobs=1, cpu_seconds=2.0, gpu_seconds=0.5))
        tenants.add(connection, "other", NOON, Counted(jobs=9))
    with engine.connect() as connection:
        assert tenants.counted(connection, "vision", NOON) == (Counted(2, 4.0, 1.0), Counted(3, 6.0, 1.5))
        assert tenants.counted(connection, "nobody", NOON) == (Counted(), Counted())
