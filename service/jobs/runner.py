"""Runs jobs in this process, or leaves them to the workers that share its database."""

from __future__ import annotations

from calibration.process.memory import return_free_memory
from service.database.engine import check_answers
from service.database.wakeups import WakeUps
from service.jobs.execution.engine_records import EngineRecords
from service.jobs.execution.takeover import take_over
from service.jobs.recovery import Dispatcher, reconcile
from service.jobs.resources import Deps
from service.jobs.store import JOBS_CHANNEL
from service.jobs.upkeep.periodic import Periodic
from service.jobs.workflow import Workflows


class Runner:
    """What a process does for jobs that are queued: all of it, or nothing in one that only answers callers."""

    def __init__(self, deps: Deps) -> None:
        """Prepare; ``start`` starts."""
        self._deps = deps
        self._workflows: Workflows | None = None
        self._records = EngineRecords(deps.database_url)  # opened only where there are no workflows here
        self._dispatcher: Dispatcher | None = None
        self._takeover: Periodic | None = None
        self._sweeper: Periodic | None = None
        self._wake_ups: WakeUps | None = None
        self._memory = Periodic("memory", _MEMORY_SECONDS, return_free_memory, deps.stopping)

    def start(self) -> None:
        """Take jobs from now on; those that ran here when the process last ended go on."""
        deps = self._deps
        self._memory.start()
        if (sweep_folders := deps.files.sweep) is not None:
            self._sweeper = Periodic("folders", _FOLDERS_SECONDS, lambda: sweep_folders(self._is_active), deps.stopping)
            self._sweeper.start()
        if not deps.role.runs_stages:
            return
        self._workflows = workflows = Workflows(deps, on_end=self._wake)
        workflows.launch()
        self._dispatcher = Dispatcher(workflows, deps)
        if deps.role.takes_jobs:
            reconcile(workflows, deps)
        self._dispatcher.start()
        if (membership := deps.membership) is not None:
            self._wake_ups = WakeUps(deps.database_url, JOBS_CHANNEL, self._wake)
            self._wake_ups.start()
            seconds = membership.lease.seconds * _SWEEP_SHARE

            def sweep() -> None:
                if membership.lease.number() is not None:
                    check_answers(deps.store.engine)
                    take_over(membership.members, deps.name)

            self._takeover = Periodic("takeover", seconds, sweep, deps.stopping)
            self._takeover.start()

    def hand_over(self, job_id: str) -> None:
        """Tell that a job is queued; takes no time."""
        del job_id  # whose turn it is the line says
        self._wake()

    def forget(self, job_id: str) -> None:
        """Remove what the workflow engine recorded of a job that is finished."""
        if self._workflows is not None:
            self._workflows.forget(job_id)
        else:
            self._records.forget(job_id)

    def stop(self) -> None:
        """End the running stage; its job goes on at the next start, or elsewhere."""
        self._deps.stopping.set()
        for periodic in (self._takeover, self._sweeper, self._memory):
            if periodic is not None:
                periodic.join()
        if self._wake_ups is not None:
            self._wake_ups.close()
        if self._dispatcher is not None:
            self._dispatcher.stop()
        if self._workflows is not None:
            self._workflows.stop()
        self._records.close()

    def _is_active(self, job_id: str) -> bool:
        """Whether the job, or a stage of it, runs in this process; workflows of stages have its id as the beginning of theirs."""
        return self._workflows is not None and any(one.startswith(job_id) for one in self._workflows.active_jobs)

    def _wake(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.wake()


_FOLDERS_SECONDS = 5.0
_MEMORY_SECONDS = 60.0
_SWEEP_SHARE = 0.2  # of the lease's seconds
