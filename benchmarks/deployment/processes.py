"""The simulated processes: the product's own dispatcher, lease, tenure and takeover, with what they would ask Postgres simulated.

Whether a process is alive is a fact that the simulation sets. Everything that follows from it is decided by the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import sqlalchemy as sa

from service.database.lease import Lease
from service.database.members import Member, Members
from service.database.membership import Membership
from service.database.role import Role
from service.jobs.recovery import Dispatcher
from service.jobs.resources import Deps
from service.jobs.workflow import Workflows


class SimulatedMembers(Members):
    """The table of processes, with the locks of the living held by the simulation in the place of Postgres's sessions."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the table where it is missing."""
        super().__init__(engine)
        self.held: set[str] = set()

    def note_all(self, members: Iterable[Member]) -> None:
        """Write the rows of many processes."""
        for member in members:
            self.note(member)

    def alive(self) -> tuple[Member, ...]:
        """Return the processes whose lock is held."""
        return tuple(member for member in self.all() if member.name in self.held)

    @contextmanager
    def taken_as_dead(self, name: str) -> Iterator[bool]:
        """Give whether the lock of a process is free."""
        yield name not in self.held


class SimulatedLease(Lease):
    """A lease whose questions to the server are answered, or not, by the simulation; what follows is the product's."""

    def __init__(self, name: str, seconds: float, clock: Callable[[], float]) -> None:
        """Hold nothing yet; see ``Lease``."""
        super().__init__("", name, seconds, clock)
        self.is_heard = True

    def number(self) -> int | None:
        """Return the number of the lease; see ``Lease``."""
        if self.is_heard:
            self._seen = self._clock()
        return super().number()

    def take(self) -> None:
        """Take it, under the next number."""
        self.is_heard = True
        self._numbers += 1
        self._number = self._numbers

    def fall_silent(self, heard: float) -> None:
        """Hear nothing of the server any more, the last time at a moment that may be past."""
        self.is_heard = False
        self._seen = heard

    def lose(self) -> None:
        """Find that the session has ended."""
        self._number = None


class SimulatedWorkflows(Workflows):
    """What a process hands to the workflow engine and takes from it; the threads that would run it are simulated."""

    def __init__(self, deps: Deps, launched: Workflows, on_enqueue: Callable[[str], None]) -> None:
        """Share the engine of another one, which is launched.

        Args:
            deps: Of the process.
            launched: Knows the functions of the workflows.
            on_enqueue: Told of each job that is enqueued.
        """
        super().__init__(deps)
        self._optimize_job = launched._optimize_job
        self._on_enqueue = on_enqueue
        self._running = ExitStack()

    def enqueue(self, job_id: str) -> None:
        """Let the next worker that is free run the job."""
        super().enqueue(job_id)
        self._on_enqueue(job_id)

    def set_pace(self, is_brisk: bool) -> None:
        """Do nothing: the simulation says when queues are looked into."""

    def begin(self, workflow_id: str) -> None:
        """Count a workflow in."""
        self._running.enter_context(self._active.with_job(workflow_id))

    def end(self) -> None:
        """Count it out."""
        self._running.close()


class Process:
    """One worker of the deployment."""

    def __init__(
        self,
        member: Member,
        deps: Deps,
        members: SimulatedMembers,
        launched: Workflows,
        clock: Callable[[], float],
        on_enqueue: Callable[[str], None],
    ) -> None:
        """Start it: it takes its lease and works.

        Args:
            member: What it is for.
            deps: Those of the server, of which it gets a copy with its own membership.
            members: All processes.
            launched: The workflow engine.
            clock: Gives seconds.
            on_enqueue: Told of each job that it enqueues.
        """
        self.member = member
        self.lease = SimulatedLease(member.name, deps.settings.lease_seconds, clock)
        self.deps = replace(deps, membership=Membership(member, self.lease, members))
        self.workflows = SimulatedWorkflows(self.deps, launched, on_enqueue)
        self.dispatcher = Dispatcher(self.workflows, self.deps)
        self.is_up = True
        self.is_connected = True
        self._members = members
        self.join()

    @property
    def name(self) -> str:
        """Its own among all."""
        return self.member.name

    @property
    def is_cpu(self) -> bool:
        """Whether it runs jobs, and not the GPU stages of jobs."""
        return self.member.role is Role.CPU

    @property
    def is_free(self) -> bool:
        """Whether it can take work now."""
        return self.is_up and self.is_connected and not self.workflows.active_jobs and self.lease.number() is not None

    def join(self) -> None:
        """Take the lease, and the lock with it."""
        self.is_up = self.is_connected = True
        self.lease.take()
        self._members.held.add(self.name)

    @property
    def has_session(self) -> bool:
        """Whether the server holds its lock."""
        return self.name in self._members.held

    def forget_session(self) -> None:
        """Lose the lock: the server has ended the session, of which the process may not know yet."""
        self._members.held.discard(self.name)

    def leave(self) -> None:
        """Lose the lock, and know it."""
        self.forget_session()
        self.lease.lose()
