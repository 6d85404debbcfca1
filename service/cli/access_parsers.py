"""The arguments of the commands of a server's operator."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from service.access.caller import DEFAULT_TENANT, Role
from service.cli import access_commands
from service.cli.access_commands import NO_LIMIT, Run

AddCommand = Callable[[str, Run], argparse.ArgumentParser]
Nested = Callable[[str, str], AddCommand]


def add_access_commands(command: AddCommand, nested: Nested) -> argparse.ArgumentParser:
    """Add the commands, and return the one that asks a server.

    Args:
        command: Adds a command.
        nested: Adds one, with its summary, that has commands of its own, and returns what adds these.
    """
    keys = nested("keys", "Make, list, revoke and rotate the keys of a server.")
    create = keys("create", access_commands.create_key)
    create.add_argument("--role", choices=[role.value for role in Role], required=True, help="what the key may do")
    create.add_argument(
        "--tenant", metavar="NAME", default=DEFAULT_TENANT, help=f"whose jobs and files it sees (default {DEFAULT_TENANT}); made if new"
    )
    create.add_argument("--name", metavar="LABEL", default="", help="a label for the list of keys")
    create.add_argument("--expires", metavar="TIME", help="after so long it is refused, such as 90d or 12h (default: never)")
    _add_limits(create)
    revoke, rotate = keys("revoke", access_commands.revoke_key), keys("rotate", access_commands.rotate_key)
    for parser in (revoke, rotate):
        parser.add_argument("key", metavar="KEY", help="the key's id")
    list_keys = keys("list", access_commands.list_keys)
    tenants = nested("tenants", "List the tenants of a server, and set their limits.")
    list_tenants, limit = tenants("list", access_commands.list_tenants), tenants("limit", access_commands.limit_tenant)
    limit.add_argument("tenant", metavar="NAME", help="the tenant")
    _add_limits(limit)
    audit = command("audit", access_commands.audit)
    audit.add_argument("--since", metavar="TIME", help="only entries from then on: 2026-11-29T10:00 (UTC), or 7d for the last week")
    audit.add_argument("--tenant", metavar="NAME", help="only those of this tenant")
    audit.add_argument("--limit", type=int, metavar="N", help="as many of the newest at most (default: all)")
    audit.add_argument("--json", action="store_true", help="one JSON object a line")
    encryption = command("rotate-encryption-key", access_commands.rotate_encryption_key)
    encryption.add_argument("--print", action="store_true", help="print a key for the setting ENCRYPTION_KEYS, and change nothing")
    for parser in (create, revoke, rotate, list_keys, list_tenants, limit, audit, encryption):
        parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the server's data folder")
    usage = command("usage", access_commands.usage)
    usage.add_argument("--tenant", metavar="NAME", help="of this tenant, for admins")
    return usage


def count_from_text(text: str) -> int:
    """Return a whole number from 1 on, for ``argparse``, which says the name of the flag."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 on")
    return number


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "limits of the tenant", f"They hold for all its keys together, whoever sets them; {NO_LIMIT} lifts one."
    )
    for flag, name, words in (
        ("--max-jobs", "jobs_at_once", "jobs that wait and run at a time"),
        ("--max-jobs-per-day", "jobs_per_day", "jobs submitted in a day (UTC)"),
        ("--max-bytes", "stored_bytes", "bytes of uploads and of what jobs left"),
        ("--max-gpu-minutes-per-day", "gpu_minutes_per_day", "minutes that stages run on a GPU"),
        ("--max-gpu-minutes-per-month", "gpu_minutes_per_month", "the same in a calendar month"),
        ("--max-cpu-minutes-per-day", "cpu_minutes_per_day", "minutes that stages of other targets run"),
        ("--max-cpu-minutes-per-month", "cpu_minutes_per_month", "the same in a calendar month"),
    ):
        group.add_argument(flag, dest=name, metavar="N", help=words)
    both = group.add_mutually_exclusive_group()
    own = "its jobs use no measurements of other tenants, nor others its own"
    both.add_argument("--own-measurements", dest="shares_measurements", action="store_const", const=False, help=own)
    both.add_argument("--shared-measurements", dest="shares_measurements", action="store_const", const=True, help="they do (the default)")
