"""The tenants of a server: their limits, what they have used by day, and whether they share measurements with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from service.access.caller import DEFAULT_TENANT, check_tenant
from service.access.limits import LIMITS, Limits
from service.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Tenant:
    """A party whose jobs and files nobody else sees."""

    name: str
    limits: Limits
    shares_measurements: bool  # whether its stages use kept results of other tenants, and others its own


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted of a tenant by day: jobs submitted, and the seconds that stages ran."""

    jobs: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0


class Tenants:
    """Reads and writes tenants. Safe to share between threads and processes: the database is the only state."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the tables where they are missing, and the default tenant."""
        self._engine = engine
        _METADATA.create_all(engine)
        self.ensure(DEFAULT_TENANT)

    def ensure(self, name: str) -> None:
        """Write a tenant without limits, unless it is there.

        Raises:
            InvalidConfigError: It is no name of a tenant.
        """
        check_tenant(name)
        with self._engine.connect() as connection:
            if connection.execute(sa.select(_TENANTS.c.name).where(_TENANTS.c.name == name)).first() is not None:
                return
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_TENANTS).values(name=name, shares_measurements=True, changes=0))
        except sa.exc.IntegrityError:
            return  # another process was first, and wrote the same

    def get(self, name: str) -> Tenant:
        """Return a tenant.

        Raises:
            NotFoundError: There is none of this name.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_TENANTS).where(_TENANTS.c.name == name)).mappings().first()
        if row is None:
            raise NotFoundError(
                f"tenant {name!r}: there is no such tenant", fix="A tenant is there once it has a key: `onnx-trt-optimizer keys list`."
            )
        return _tenant(row)

    def list(self) -> tuple[Tenant, ...]:
        """Return all tenants by name."""
        with self._engine.connect() as connection:
            return tuple(map(_tenant, connection.execute(sa.select(_TENANTS).order_by(_TENANTS.c.name)).mappings()))

    def change(self, name: str, limits: Mapping[str, float | None], *, shares_measurements: bool | None = None) -> Tenant:
        """Set the limits that are given, None for no limit, and leave the others.

        Raises:
            NotFoundError: There is no such tenant.
            InvalidConfigError: A limit is out of bounds.
        """
        Limits(**limits)  # type: ignore[arg-type]  # checks each; whole numbers are told apart by who reads them
        values: dict[str, object] = dict(limits)
        if shares_measurements is not None:
            values["shares_measurements"] = shares_measurements
        if values:
            with self._engine.begin() as connection:
                connection.execute(sa.update(_TENANTS).where(_TENANTS.c.name == name).values(values))
        return self.get(name)

    def locked(self, connection: sa.Connection, name: str) -> Limits:
        """Return a tenant's limits, and let nobody else count for it until the transaction ends, which writes nothing before.

        The row is written first: SQLite then holds its one lock for writing, Postgres that of the row. So what is counted next is what
        was committed, and two requests cannot both take the last place.
        """
        change = sa.update(_TENANTS).where(_TENANTS.c.name == name).values(changes=_TENANTS.c.changes + 1)
        if connection.execute(change).rowcount == 0:
            connection.execute(sa.insert(_TENANTS).values(name=name, shares_measurements=True, changes=0))
        return _limits(connection.execute(sa.select(_TENANTS).where(_TENANTS.c.name == name)).mappings().one())

    def add(self, connection: sa.Connection, name: str, at: datetime, counted: Counted) -> None:
        """Add to what is counted of the day, in a transaction that has ``locked`` the tenant."""
        day = _day(at)
        values = {
            "jobs": _USAGE.c.jobs + counted.jobs,
            "cpu_seconds": _USAGE.c.cpu_seconds + counted.cpu_seconds,
            "gpu_seconds": _USAGE.c.gpu_seconds + counted.gpu_seconds,
        }
        if connection.execute(sa.update(_USAGE).where(_USAGE.c.tenant == name, _USAGE.c.day == day).values(values)).rowcount == 0:
            row = {"tenant": name, "day": day, "jobs": counted.jobs, "cpu_seconds": counted.cpu_seconds, "gpu_seconds": counted.gpu_seconds}
            connection.execute(sa.insert(_USAGE).values(row))

    def counted(self, connection: sa.Connection, name: str, at: datetime) -> tuple[Counted, Counted]:
        """Return what is counted of the day and of the month that a moment lies in, in UTC."""
        day = _day(at)
        of_day = connection.execute(_sums(name).where(_USAGE.c.day == day)).one()
        of_month = connection.execute(_sums(name).where(_USAGE.c.day >= f"{day[:7]}-01", _USAGE.c.day <= f"{day[:7]}-31")).one()
        return _counted(of_day), _counted(of_month)


def _sums(name: str) -> sa.Select[tuple[object, ...]]:
    sums = [sa.func.coalesce(sa.func.sum(_USAGE.c[column]), 0) for column in ("jobs", "cpu_seconds", "gpu_seconds")]
    return sa.select(*sums).where(_USAGE.c.tenant == name)


def _counted(sums: sa.Row[tuple[object, ...]]) -> Counted:
    jobs, cpu_seconds, gpu_seconds = (float(str(value)) for value in sums)  # Postgres sums whole numbers as decimals
    return Counted(int(jobs), cpu_seconds, gpu_seconds)


def _tenant(row: sa.RowMapping) -> Tenant:
    return Tenant(row["name"], _limits(row), bool(row["shares_measurements"]))


def _limits(row: sa.RowMapping) -> Limits:
    return Limits(**{name: row[name] for name in LIMITS})


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"


_METADATA = sa.MetaData()
_TENANTS = sa.Table(
    "tenants",
    _METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    *(sa.Column(name, sa.Float if "minutes" in name else sa.BigInteger) for name in LIMITS),
    sa.Column("shares_measurements", sa.Boolean, nullable=False),
    sa.Column("changes", sa.BigInteger, nullable=False),  # counted up to hold the row
)
_USAGE = sa.Table(
    "tenant_usage",
    _METADATA,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),  # 2026-11-29
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("cpu_seconds", sa.Float, nullable=False),
    sa.Column("gpu_seconds", sa.Float, nullable=False),
)
