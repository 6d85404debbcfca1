"""How a process joins the others on the same database: under a name of its own, with a lease."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import sqlalchemy as sa

from service.database.advisory_locks import database_lock
from service.database.lease import Lease
from service.database.members import Member, Members
from service.database.role import Role
from service.errors import ProcessNameInUseError
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Membership:
    """What ties this process to the others."""

    member: Member
    lease: Lease
    members: Members


def join(
    engine: sa.Engine, settings: Settings, url: str, role: Role, version: str, gpu: str | None, probes: str | None = None
) -> Membership:
    """Take the lease of this process and write down what it is for.

    Args:
        engine: Of the database that the processes share.
        settings: This process's.
        url: Of the same database.
        role: What it is for.
        version: Of its pipeline.
        gpu: Product name of the GPU whose stages it runs.
        probes: With which provider of ONNX Runtime it measures parts of stages meanwhile; None: it does not.

    Raises:
        ProcessNameInUseError: Another process works under this name.
        StorageError: The database cannot be reached.
    """
    name = settings.executor_id or default_name(role, gpu)
    member = Member(name, role, version, socket.gethostname(), os.getpid(), gpu, probes)
    with database_lock(engine, "tables"):
        members = Members(engine)
    lease = Lease(url, member.name, settings.lease_seconds)
    try:
        lease.acquire()
    except ProcessNameInUseError as error:
        other = members.find(member.name)
        if other is None:
            raise
        raise ProcessNameInUseError(f"{error.detail}: process {other.pid} on host {other.host!r}", fix=error.fix) from error
    members.note(member)
    return Membership(member, lease, members)


def default_name(role: Role, gpu: str | None) -> str:
    """Return the name of a process that was given none: its host, what it is for, and the GPU that CUDA shows it."""
    parts = [socket.gethostname(), role.value]
    if gpu is not None:
        parts += [gpu, os.environ.get("CUDA_VISIBLE_DEVICES", "0")]
    return ":".join(parts)
