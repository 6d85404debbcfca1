"""What the commands of a server's operator do: keys, tenants, audit. They work on the data folder, whether its server runs or not.

So whoever may write to the folder needs no key to make the first one, and a revoked key is refused by a running server at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from calibration.errors import InvalidConfigError
from service.access.audit import KEY_CREATED, AuditEntry, AuditLog, time_text
from service.access.caller import DEFAULT_TENANT, Role
from service.access.limits import LIMITS
from service.cli.commands import Output, client_of, settings_of
from service.cli.text_table import text_table
from service.settings import PREFIX, Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from service.access.keys import AccessKey, Keys
    from service.access.tenants import Tenant, Tenants

COMMAND_LINE = "command-line"  # who made a change, in the audit log
NO_LIMIT = "none"


def create_key(arguments: argparse.Namespace, out: Output) -> None:
    """Make a key, print it, and set the limits of its tenant that are given; it is shown this once."""
    limits = _limits(arguments)
    lifetime = None if arguments.expires is None else _duration(arguments.expires)
    with _folder(arguments, is_made=True) as folder:
        folder.tenants.ensure(arguments.tenant)
        tenant = folder.tenants.change(arguments.tenant, limits, shares_measurements=arguments.shares_measurements)
        if limits or arguments.shares_measurements is not None:
            folder.note_limits(tenant)
        text, key = folder.keys.create(Role(arguments.role), arguments.tenant, name=arguments.name, lifetime=lifetime)
        folder.note(KEY_CREATED, key)
    out(str(text))
    until = "" if key.expires_at is None else f", until {_moment(key.expires_at)}"
    _say(f"key {key.id}: role {key.role}, tenant {key.tenant}{until}. It is shown this once: keep it, and send it as")
    _say("'Authorization: Bearer KEY', or set it as " + PREFIX + "API_KEY for the commands of this program.")


def list_keys(arguments: argparse.Namespace, out: Output) -> None:
    """List all keys, without their secrets, the oldest first."""
    with _folder(arguments) as folder:
        keys, now = folder.keys.list(), folder.keys.now()
    head = ("KEY", "ROLE", "TENANT", "STATE", "CREATED", "EXPIRES", "USED", "NAME")
    rows = [
        (key.id, key.role, key.tenant, key.state(now), *map(_moment, (key.created_at, key.expires_at, key.used_at)), key.name)
        for key in keys
    ]
    for line in text_table(head, rows) if rows else ("no keys",):
        out(line)


def revoke_key(arguments: argparse.Namespace, out: Output) -> None:
    """Revoke a key: a running server refuses it from its next request on."""
    with _folder(arguments) as folder:
        key = folder.keys.revoke(_id_of(arguments.key))
        folder.note("key revoked", key)
    out(f"revoked {key.id}")


def rotate_key(arguments: argparse.Namespace, out: Output) -> None:
    """Give a key another secret and print the new key; the old one is refused from its next request on."""
    with _folder(arguments) as folder:
        text, key = folder.keys.rotate(_id_of(arguments.key))
        folder.note("key rotated", key)
    out(str(text))
    _say(f"key {key.id}: it has a new secret, which is shown this once.")


def rotate_encryption_key(arguments: argparse.Namespace, out: Output) -> None:
    """Replace the key that webhooks are encrypted with in the database; servers may run meanwhile."""
    from service.access.encryption import Encryption, new_key
    from service.access.key_places import key_place
    from service.database.advisory_locks import database_lock
    from service.jobs.live.webhooks import KEY_LOCK, Webhooks
    from service.jobs.objects.opening import open_objects

    if arguments.print:
        out(new_key())
        return
    settings = settings_of(arguments)
    with _folder(arguments) as folder:
        encryption = Encryption(key_place(settings, open_objects(settings)))
        webhooks = Webhooks(folder.engine, encryption)
        with database_lock(folder.engine, KEY_LOCK):
            where = encryption.replace_key(webhooks.renew)
        folder.write("encryption key replaced", DEFAULT_TENANT, where)
    out(f"{where}: there is a new key, and all webhooks are encrypted with it")
    _say("The key before it stays as a second line, for what is being written now. Where it has leaked, do the same again in a minute.")


def list_tenants(arguments: argparse.Namespace, out: Output) -> None:
    """List all tenants with their limits."""
    with _folder(arguments) as folder:
        tenants = folder.tenants.list()
    for tenant in tenants:
        out(_tenant_line(tenant))


def limit_tenant(arguments: argparse.Namespace, out: Output) -> None:
    """Set the limits of a tenant that are given, and leave the others; they hold for all its keys together, at once."""
    limits = _limits(arguments)
    with _folder(arguments) as folder:
        tenant = folder.tenants.change(arguments.tenant, limits, shares_measurements=arguments.shares_measurements)
        folder.note_limits(tenant)
    out(_tenant_line(tenant))


def audit(arguments: argparse.Namespace, out: Output) -> None:
    """Print the audit log, the oldest of the chosen entries first."""
    since = None if arguments.since is None else _since(arguments.since)
    if arguments.limit is not None and arguments.limit < 0:
        raise InvalidConfigError(f"--limit {arguments.limit}: expected 0 or more", fix="Correct it, or leave it out for all entries.")
    with _folder(arguments) as folder:
        found = list(itertools.islice(folder.audit.entries(since=since, tenant=arguments.tenant), arguments.limit))[::-1]
    if arguments.json:
        for entry in found:
            out(json.dumps({name: value for name, value in dataclasses.asdict(entry).items() if value is not None}))
        return
    head = ("TIME", "ACTION", "STATUS", "KEY", "TENANT", "JOB", "ADDRESS", "WHAT")
    for line in text_table(head, map(_cells, found)) if found else ("no entries",):
        out(line)


def usage(arguments: argparse.Namespace, out: Output) -> None:
    """Print what your key may do, and what its tenant uses of its quotas."""
    with client_of(arguments) as client:
        found = client.usage(arguments.tenant)
    out(f"key {found.key_id}, role {found.role}, tenant {found.tenant}")
    head = ("QUOTA", "USED", "LIMIT", "COUNTS FROM 0 AGAIN AT")
    rows = [
        (name.replace("_", " "), f"{quota.used:,.12g}", NO_LIMIT if quota.limit is None else f"{quota.limit:,.12g}", quota.resets_at or "")
        for name, quota in found.quotas.items()
    ]
    for line in text_table(head, rows):
        out(line)


@dataclass(frozen=True, slots=True)
class _Folder:
    """What of a server's data folder these commands read and write."""

    engine: sa.Engine
    keys: Keys
    tenants: Tenants
    audit: AuditLog

    def note(self, action: str, key: AccessKey) -> None:
        self.write(action, key.tenant, f"key {key.id}, role {key.role}" + (f", name {key.name}" if key.name else ""))

    def note_limits(self, tenant: Tenant) -> None:
        self.write("limits changed", tenant.name, _tenant_line(tenant))

    def write(self, action: str, tenant: str, about: str) -> None:
        self.audit.write(AuditEntry(time_text(self.keys.now()), action, COMMAND_LINE, tenant, about=about))


@contextlib.contextmanager
def _folder(arguments: argparse.Namespace, *, is_made: bool = False) -> Iterator[_Folder]:
    from service.access.keys import Keys  # these load the database library, which clients do without
    from service.access.tenants import Tenants
    from service.database.engine import open_engine
    from service.jobs.resources import DATABASE_NAME, audit_log, database_url

    settings = settings_of(arguments)
    if is_made:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    elif not settings.data_dir.is_dir():
        raise InvalidConfigError(
            f"data folder {settings.data_dir}: there is none", fix=f"Name the server's: --data-dir, or {PREFIX}DATA_DIR."
        )
    if not is_made and not settings.is_shared and not (settings.data_dir / DATABASE_NAME).is_file():
        raise InvalidConfigError(
            f"data folder {settings.data_dir}: no server or first key was ever there",
            fix=f"Name the server's: --data-dir, or {PREFIX}DATA_DIR.",
        )
    _check_user(settings)
    engine = open_engine(database_url(settings))
    try:
        yield _Folder(engine, Keys(engine, lambda: datetime.now(UTC)), Tenants(engine), audit_log(settings))
    finally:
        engine.dispose()


def _check_user(settings: Settings) -> None:
    """Refuse to work as root on the folder of a server that runs as somebody else, which could not write the files that are made now."""
    owner = settings.data_dir.stat().st_uid
    if os.geteuid() == 0 != owner and not settings.is_shared:
        raise InvalidConfigError(
            f"data folder {settings.data_dir}: it is that of user {owner}, and this runs as root, whose files its server could not write",
            fix=f"Run it as that user: sudo --preserve-env --user '#{owner}' onnx-trt-optimizer ...",
        )


def _limits(arguments: argparse.Namespace) -> Mapping[str, float | None]:
    """Return the limits that are given, by name; None for one that is lifted."""
    given = {name: text for name in LIMITS if (text := getattr(arguments, name)) is not None}
    return {name: None if text == NO_LIMIT else _number(name, text) for name, text in given.items()}


def _number(name: str, text: str) -> float:
    try:
        return float(text) if "minutes" in name else int(text)
    except ValueError as exc:
        kind = "a number" if "minutes" in name else "a whole number"
        raise InvalidConfigError(f"limit {name}: found {text!r}, expected {kind}, or {NO_LIMIT}", fix="Correct it.") from exc


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidConfigError(f"time {text!r}: expected days or hours such as 90d or 12h", fix="Correct it.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _since(text: str) -> datetime:
    """Return a moment: one that is named, or so long ago."""
    if _DURATION.fullmatch(text):
        now = datetime.now(UTC)
        return now - min(_duration(text), now - _EARLIEST)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidConfigError(f"--since {text!r}: expected a time such as 2026-11-29T10:00, or 7d", fix="Correct it.") from exc
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _id_of(text: str) -> str:
    """Return the id of a key, which may be given whole by who wants to revoke what was found somewhere."""
    return text.split("_")[1] if text.startswith("oto_") and "_" in text[4:] else text.removeprefix("oto_")


def _tenant_line(tenant: Tenant) -> str:
    given = [f"{name.replace('_', ' ')} {value:,}" for name, value in tenant.limits.given().items()]
    own = [] if tenant.shares_measurements else ["own measurements"]
    return f"{tenant.name}: {', '.join([*given, *own]) or 'no limits'}"


def _cells(entry: AuditEntry) -> Sequence[str]:
    cells = (entry.time, entry.action, entry.status, entry.key, entry.tenant, entry.job, entry.address, entry.about or entry.route)
    return ["" if cell is None else str(cell) for cell in cells]


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _say(line: str) -> None:
    sys.stderr.write(line + os.linesep)


Run = Callable[[argparse.Namespace, Output], None]
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_UNITS = {"d": "days", "h": "hours"}
_DURATION = re.compile(r"([0-9]{1,6})([dh])")
