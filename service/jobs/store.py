"""The jobs table: what each job was asked to do, how far it is and what came of it.

It lives in the same database as the workflow engine's tables but belongs to us. Every change is one statement that names the state it
expects, so that two threads or a restart in between cannot undo each other's work. Every method may raise a ``StorageError``: within a few
seconds, also where another process holds the database locked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from calibration.codec import as_object, json_from_value
from service.access.caller import DEFAULT_TENANT
from service.access.encryption import Encryption
from service.access.keys import Keys
from service.access.tenants import Tenants
from service.database.advisory_locks import database_lock
from service.database.engine import is_postgres, open_engine
from service.database.wakeups import wake
from service.jobs.branches.following import cancelled, follow
from service.jobs.job_table import IS_OWN, JOBS, job_from_row, prepare, put_raw_row, row_of
from service.jobs.live.events import Event, EventLog
from service.jobs.live.file_uses import FileUses, files_in
from service.jobs.live.job_reader import JobReader
from service.jobs.live.removed import RemovedJobs
from service.jobs.live.telling import Teller
from service.jobs.live.webhooks import PLAIN_WEBHOOKS, Webhooks
from service.jobs.quotas.admission import Admission
from service.jobs.quotas.file_owners import OWNERS, FileOwners
from service.jobs.records import Job, JobState, NewJob, StoredFile, Webhook, check_move
from service.jobs.storage.database import put_rows
from service.jobs.storage.holds import Holds
from service.jobs.storage.shared_holds import SharedHolds

logger = logging.getLogger(__name__)


class JobStore(JobReader):
    """Reads and writes jobs, and tells of each change in ``events``.

    Safe to share between threads; the database and ``holds``, the jobs that wait for it, are the only state.
    """

    def __init__(self, url: str, clock: Callable[[], datetime], encryption: Encryption | None = None) -> None:
        """Open the database and create the table where it is missing.

        Args:
            url: A SQLAlchemy URL.
            clock: The present, in UTC.
            encryption: Of webhooks; without it there are none.
        """
        self._clock = clock
        self.engine = engine = open_engine(url)
        with database_lock(engine, "tables"):
            there = sa.inspect(engine)
            self.is_without_owners = there.has_table(JOBS.name) and not there.has_table(OWNERS.name)  # from before there were tenants
            prepare(engine)
            holds = SharedHolds(engine) if is_postgres(engine) else Holds()
            super().__init__(engine, holds, RemovedJobs(engine), Tenants(engine))
            self.events = EventLog(engine)
            self.webhooks = Webhooks(engine, encryption)
            self.file_uses = FileUses(engine, JOBS)
            self.keys = Keys(engine, clock)
            self.owners = FileOwners(engine, self.tenants, clock)
        self._teller = Teller(self.events, clock)
        self.admission = Admission(engine, self.tenants, self.owners, clock)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def create(
        self,
        new: NewJob,
        webhook: Webhook | None = None,
        created_at: datetime | None = None,
        admit: Callable[[sa.Connection], None] = lambda _: None,
        branches: Sequence[NewJob] = (),
    ) -> tuple[Job, bool]:
        """Write a queued job; an idempotency key that its tenant repeats gives the job that it made first.

        Args:
            new: The job.
            webhook: Who is told of its end.
            created_at: When it was submitted; now by default.
            admit: Called in the transaction, before anything is written; what it raises is raised here, and there is no job.
            branches: The jobs that do its work, which are written with it.

        Returns:
            The job, and whether it is new.

        Raises:
            InvalidRequestError: The idempotency key was used for another request.
        """
        at = self._now() if created_at is None else created_at.timestamp()
        told = None if webhook is None else self.webhooks.encrypted(new.id, webhook)
        self.tenants.ensure(new.tenant)  # of a job that is recovered from its folder the database may know none
        try:
            with self._engine.begin() as connection:
                admit(connection)
                events = {}
                for one in (new, *branches):
                    connection.execute(sa.insert(JOBS).values(row_of(one, at)))
                    events[one.id] = self._teller.moved(connection, one.id, JobState.QUEUED)
                if told is not None:
                    self.webhooks.add(connection, new.id, told)
                wake(connection, JOBS_CHANNEL)
        except sa.exc.IntegrityError:
            earlier = self.find_by_key(new.tenant, new.idempotency_key, new.request_sha256)
            if earlier is None:
                raise
            return earlier, False
        self._publish(events)
        return self.get(new.id), True

    def restore_tables(self, tables: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        """Write all that an earlier database told but its jobs, as SQLite gave it: a server that had keys goes on wanting them."""
        for table, rows in tables.items():
            if table == PLAIN_WEBHOOKS.name and rows:
                self.webhooks.expect_plain()
            if table != JOBS.name and rows:
                put_rows(self._engine, table, [{"tenant": DEFAULT_TENANT, **row} for row in rows])

    def restore(self, rows: Sequence[Mapping[str, object]]) -> int:
        """Write jobs of an earlier database, as SQLite gave them, and return how many were whole; those that are here already stay."""
        written = 0
        for row in rows:
            try:
                with self._engine.begin() as connection:
                    if put_raw_row(connection, row):
                        files = self._read(connection, str(row["id"])).artifacts.values()
                        self.file_uses.note(connection, str(row["id"]), files)
                        written += 1
            except (ValueError, TypeError, KeyError, sa.exc.NoResultFound) as exc:
                logger.warning("job %s: its row cannot be read and is left out: %s", row.get("id"), exc)
        return written

    def remove(self, job_id: str, why: str) -> frozenset[str] | None:
        """Remove a finished job with its events and its branches, for good; one that is not finished, or is a branch, stays.

        Args:
            job_id: The job.
            why: What whoever asks for it later is told: "it was deleted ...".

        Returns:
            Digests of its files that no job has any more; None where it was not removed.
        """
        finished = [state.value for state in JobState if state.is_finished]
        with self._engine.begin() as connection:
            statement = sa.delete(JOBS).where(JOBS.c.id == job_id, IS_OWN, JOBS.c.state.in_(finished)).returning(JOBS.c.tenant)
            if (tenant := connection.execute(statement).scalar_one_or_none()) is None:
                return None
            branches = connection.execute(sa.delete(JOBS).where(JOBS.c.parent == job_id).returning(JOBS.c.id)).scalars().all()
            unused: frozenset[str] = frozenset()
            for one in (job_id, *branches):
                self._removed.note(connection, one, tenant, self._now(), why)
                self.events.remove(connection, one)
                self.webhooks.remove(connection, one)
                unused |= self.file_uses.remove(connection, one)
            return unused

    def forget_removed(self, before: float, is_needed: Callable[[str], bool]) -> int:
        """Tell of jobs that were removed before a moment no more; for the arguments see ``RemovedJobs.forget``. Returns how many."""
        return self._removed.forget(before, is_needed)

    def check_writable(self) -> None:
        """Write something that changes nothing.

        Raises:
            StorageError: The database takes no changes now.
        """
        first = sa.select(JOBS.c.sequence).limit(1).scalar_subquery()
        with self._engine.begin() as connection:
            connection.execute(sa.update(JOBS).where(JOBS.c.sequence == first).values(trial_count=JOBS.c.trial_count))

    def start(self, job_id: str) -> bool:
        """Move a queued job to running; a running one stays. Returns whether the job is to run (it may be finished already)."""
        values = {"state": JobState.RUNNING.value, "started_at": self._now()}
        tell = lambda connection: self._teller.moved(connection, job_id, JobState.RUNNING)  # noqa: E731
        self._update(job_id, JobState.QUEUED, values, tell=tell, moves_parent=True)
        return self.state(job_id) is JobState.RUNNING

    def advance(self, job_id: str, stage: str, progress: float) -> None:
        """Note the stage and the progress (0..1) of a running job; a lower progress than the noted one changes nothing."""
        values = {"stage": stage, "progress": min(max(progress, 0.0), 1.0)}
        tell = lambda connection: self._teller.advanced(connection, self._read(connection, job_id))  # noqa: E731
        self._update(job_id, JobState.RUNNING, values, JOBS.c.progress <= values["progress"], tell=tell, moves_parent=True)

    def record_outputs(self, job_id: str, outputs: Sequence[Mapping[str, object]]) -> None:
        """Note what the outputs of a running job's model were taken for."""
        self._update(job_id, JobState.RUNNING, {"outputs": [dict(output) for output in outputs]})

    def record_trials(self, job_id: str, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Note the trials of a running job; fewer than are noted (a replay after a restart) change nothing."""
        values = {"trials": [dict(trial) for trial in trials], "trial_count": len(trials), "best": best}
        tell = lambda connection: self._teller.searched(connection, job_id, trials, best)  # noqa: E731
        self._update(job_id, JobState.RUNNING, values, JOBS.c.trial_count <= len(trials), tell=tell)

    def log(self, job_id: str, line: str) -> None:
        """Tell listeners a line of a running job's log."""
        tell = lambda connection: self._teller.logged(connection, job_id, line)  # noqa: E731
        self._update(job_id, JobState.RUNNING, {"state": JobState.RUNNING.value}, tell=tell)

    def restart_search(self, job_id: str) -> None:
        """Forget what was found of an unfinished job, because another version of the pipeline will find its own."""
        values: dict[str, object] = {"trials": [], "trial_count": 0, "best": None, "outputs": None}
        for state in (JobState.QUEUED, JobState.RUNNING):
            self._update(job_id, state, values, tell=lambda connection: self._teller.restarted(connection, job_id))

    def succeed(self, job_id: str, result: Mapping[str, object], engine: str, artifacts: Mapping[str, StoredFile]) -> None:
        """Move a running job to succeeded, with its result, the name of its engine and everything that can be downloaded."""
        values = {"result": dict(result), "engine": engine, "artifacts": json_from_value(artifacts), "progress": 1.0}
        self._finish(job_id, JobState.SUCCEEDED, values)

    def fail(self, job_id: str, error: Mapping[str, object], artifacts: Mapping[str, StoredFile]) -> None:
        """Move a job to failed, with the problem object and the files that help to understand it."""
        self._finish(job_id, JobState.FAILED, {"error": dict(error), "artifacts": json_from_value(artifacts)})

    def cancel(self, job_id: str) -> JobState:
        """Move a job and its branches to cancelled, unless it is finished. Returns the state it was in; a second cancel changes nothing."""
        for state in (JobState.QUEUED, JobState.RUNNING):
            values = {"state": JobState.CANCELLED.value, "finished_at": self._now()}
            if self._update(job_id, state, values, tell=self._end(job_id), moves_parent=True, ends_branches=True):
                return state
        return self.state(job_id)

    def settle(self, job_id: str) -> None:
        """Bring a job up to its branches; where the database was lost, some of them may be there no more."""
        with self._engine.begin() as connection:
            events = follow(connection, job_id, self._teller, self.file_uses, self._now())
        self.events.publish(job_id, events)

    def _finish(self, job_id: str, new: JobState, values: Mapping[str, object]) -> None:
        old = self.state(job_id)
        check_move(old, new)
        kept, end = files_in(as_object(values["artifacts"])), self._end(job_id)

        def tell(connection: sa.Connection) -> Sequence[Event]:
            self.file_uses.note(connection, job_id, kept)
            return end(connection)

        end_values = {**values, "state": new.value, "finished_at": self._now()}
        if not self._update(job_id, old, end_values, tell=tell, moves_parent=True):
            check_move(self.state(job_id), new)

    def _end(self, job_id: str) -> Tell:
        return lambda connection: self._teller.ended(connection, self._read(connection, job_id))

    def _update(
        self,
        job_id: str,
        expected: JobState,
        values: Mapping[str, object],
        *conditions: sa.ColumnElement[bool],
        tell: Tell = lambda _: (),
        moves_parent: bool = False,
        ends_branches: bool = False,
    ) -> bool:
        statement = sa.update(JOBS).where(JOBS.c.id == job_id, JOBS.c.state == expected.value, *conditions).values(**values)
        with self._engine.begin() as connection:
            if ends_branches:  # rows are locked in one order everywhere: branches, then their job
                connection.execute(sa.select(JOBS.c.id).where(JOBS.c.parent == job_id).order_by(JOBS.c.sequence).with_for_update())
            changed = connection.execute(statement.returning(JOBS.c.parent, JOBS.c.branches)).first()
            if changed is None:
                return False
            events = {job_id: tuple(tell(connection))}
            if ends_branches and changed.branches:
                events |= cancelled(connection, job_id, self._teller, self.file_uses, self._now())
            if moves_parent and changed.parent is not None:
                events[changed.parent] = follow(connection, changed.parent, self._teller, self.file_uses, self._now())
        self._publish(events)
        return True

    def _publish(self, events: Mapping[str, Sequence[Event]]) -> None:
        for job_id, told in events.items():
            self.events.publish(job_id, told)

    def _read(self, connection: sa.Connection, job_id: str) -> Job:
        return job_from_row(connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).mappings().one())

    def _now(self) -> float:
        return self._clock().timestamp()


JOBS_CHANNEL = "onnx_trt_optimizer_jobs"  # woken when a job is submitted
Tell = Callable[[sa.Connection], Sequence[Event]]  # writes the events of a change, in its transaction
