"""The keys of a server, in its database: made, found, revoked. A change holds from the next request on, whichever process made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from calibration.errors import InvalidConfigError
from calibration.plain_text import plain_text
from service.access.caller import DEFAULT_TENANT, Caller, Role, check_tenant
from service.access.key_text import KeyText, new_key
from service.errors import NotFoundError

MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key as the operator sees it; its secret is known to its holder alone.

    Times are in UTC. ``used_at`` is exact to a minute.
    """

    id: str
    role: Role
    tenant: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """Return what the key is now: active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    @property
    def caller(self) -> Caller:
        """Who asks with this key."""
        return Caller(self.id, self.tenant, self.role, self.name)


class Keys:
    """Reads and writes keys. Safe to share between threads and processes: the database is the only state."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        """Create the table where it is missing.

        Args:
            engine: Of the database.
            clock: The present, in UTC.
        """
        self._engine = engine
        self._clock = clock
        self._is_any_known = False
        _METADATA.create_all(engine)

    def create(self, role: Role, tenant: str, *, name: str = "", lifetime: timedelta | None = None) -> tuple[KeyText, AccessKey]:
        """Make a key and return its text, which is kept nowhere, and its row.

        Args:
            role: What it may do.
            tenant: Whose it is.
            name: A label for the operator, of up to 100 characters that can be seen.
            lifetime: After it the key is refused; None: never.

        Raises:
            InvalidConfigError: The tenant or the label has no such form, or the lifetime is none.
        """
        if len(name) > MAX_NAME_CHARACTERS or plain_text(name) != name:
            raise InvalidConfigError(
                f"name {name!r}: expected up to {MAX_NAME_CHARACTERS} characters that can be seen", fix="Choose a shorter label."
            )
        now, text = self._clock(), new_key()
        row = {
            "id": text.id,
            "secret_sha256": text.secret_sha256,
            "role": role.value,
            "tenant": check_tenant(tenant),
            "name": name,
            "created_at": now.timestamp(),
            "expires_at": None if lifetime is None else _later(now, lifetime).timestamp(),
        }
        with self._engine.begin() as connection:
            connection.execute(sa.insert(_KEYS).values(row))
        self._is_any_known = True
        return text, self.get(text.id)

    def get(self, key_id: str) -> AccessKey:
        """Return a key.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_KEYS).where(_KEYS.c.id == key_id)).mappings().first()
        if row is None:
            raise NotFoundError(f"key {plain_text(key_id)[:64]!r}: there is no such key", fix="`onnx-trt-optimizer keys list` shows them.")
        return _key(row)

    def find(self, text: KeyText) -> AccessKey | None:
        """Return the key with this id and this secret, in whatever state it is; None where there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(_FIND, {"key_id": text.id}).mappings().first()
        # Compared also where there is no row, so that both take about the same time.
        is_it = text.is_of(_NOBODYS if row is None else row["secret_sha256"])
        return _key(row) if row is not None and is_it else None

    def now(self) -> datetime:
        """Return the present, by which keys expire."""
        return self._clock()

    def has_any(self) -> bool:
        """Whether there was ever a key: with the first one a server stops answering callers without one, for good."""
        if not self._is_any_known:
            with self._engine.connect() as connection:
                if connection.execute(_ANY).first() is not None:
                    self._is_any_known = True
        return self._is_any_known

    @property
    def is_any_known(self) -> bool:
        """Whether there was ever a key as far as this object, which made or saw it, can tell without a look at the database."""
        return self._is_any_known

    def list(self) -> tuple[AccessKey, ...]:
        """Return all keys, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_KEYS).order_by(_KEYS.c.created_at, _KEYS.c.id)).mappings().all()
        return tuple(map(_key, rows))

    def revoke(self, key_id: str) -> AccessKey:
        """Revoke a key, for good; a second time changes nothing.

        Raises:
            NotFoundError: There is none with this id.
        """
        change = sa.update(_KEYS).where(_KEYS.c.id == key_id, _KEYS.c.revoked_at.is_(None))
        with self._engine.begin() as connection:
            connection.execute(change.values(revoked_at=self._clock().timestamp()))
        return self.get(key_id)

    def rotate(self, key_id: str) -> tuple[KeyText, AccessKey]:
        """Give a key another secret and return its new text; from now on the old one is refused. Id, role and tenant stay.

        Raises:
            NotFoundError: There is none with this id.
            InvalidConfigError: It is revoked or expired.
        """
        found = self.get(key_id)
        if (state := found.state(self._clock())) != "active":
            raise InvalidConfigError(f"key {key_id}: it is {state}", fix="Create a new key.")
        text = new_key(key_id)
        with self._engine.begin() as connection:
            connection.execute(sa.update(_KEYS).where(_KEYS.c.id == key_id).values(secret_sha256=text.secret_sha256))
        return text, self.get(key_id)

    def go_on_wanting(self) -> None:
        """Let a server whose keys are lost want one from every caller: write a key that is revoked and has no secret."""
        now = self._clock().timestamp()
        row = {
            "id": "0" * 12,
            "secret_sha256": _NOBODYS,
            "role": Role.READ.value,
            "tenant": DEFAULT_TENANT,
            "name": "earlier keys are lost",
        }
        with self._engine.begin() as connection:
            connection.execute(sa.insert(_KEYS).values(row | {"created_at": now, "revoked_at": now}))
        self._is_any_known = True

    def note_use(self, key_id: str) -> None:
        """Note that a key was used now."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_KEYS).where(_KEYS.c.id == key_id).values(used_at=self._clock().timestamp()))


def _later(now: datetime, lifetime: timedelta) -> datetime:
    if not timedelta() < lifetime <= _LONGEST:
        raise InvalidConfigError(f"lifetime {lifetime}: expected more than 0 and at most {_LONGEST.days} days", fix="Give 90d, say.")
    return now + lifetime


def _key(row: sa.RowMapping) -> AccessKey:
    return AccessKey(
        id=row["id"],
        role=Role(row["role"]),
        tenant=row["tenant"],
        name=row["name"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        expires_at=_moment(row["expires_at"]),
        revoked_at=_moment(row["revoked_at"]),
        used_at=_moment(row["used_at"]),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


_LONGEST = timedelta(days=36500)
_NOBODYS = "0" * 64
_METADATA = sa.MetaData()
_KEYS = sa.Table(
    "access_keys",
    _METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("secret_sha256", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("used_at", sa.Float),
)
_ANY = sa.select(_KEYS.c.id).limit(1)
_FIND = sa.select(_KEYS).where(_KEYS.c.id == sa.bindparam("key_id"))  # asked for each request, so built once
