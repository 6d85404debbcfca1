"""The simulation: events take the places of threads, stages and time; what is decided is decided by the product's code."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.deployment.engine import Engine
from benchmarks.deployment.events import Events
from benchmarks.deployment.journal import JobTimes, Journal, Sample, Span, jain
from benchmarks.deployment.processes import Process, SimulatedMembers
from benchmarks.deployment.run import Run
from benchmarks.deployment.workload import Deployment, Submission
from engine_builder.config.config import config_from_json
from service.errors import QuotaExceededError
from service.jobs.execution.placement import check_place, gpu_queue, placed_on
from service.jobs.faults.endings import Tenure
from service.jobs.records import NewJob
from service.jobs.resources import Deps
from service.jobs.storage.holds import Hold
from service.jobs.workflow import QUEUE


class Simulation:
    """The state of a simulated deployment, and what happens in it without failures."""

    def __init__(
        self, deployment: Deployment, deps: Deps, engine: Engine, members: SimulatedMembers, events: Events, rng: np.random.Generator
    ) -> None:
        """Begin with no process.

        Args:
            deployment: What is simulated.
            deps: The product's belongings.
            engine: The workflow engine.
            members: The table of processes.
            events: The clock.
            rng: Draws who is quicker.
        """
        self.deployment, self.deps, self.engine, self.members, self.events, self.rng = deployment, deps, engine, members, events, rng
        self.journal = Journal()
        self.processes: dict[str, Process] = {}
        self.runs: dict[str, Run] = {}  # by process
        self.database_back = 0.0  # the database is away until then
        self.store_back = 0.0
        self._jobs: dict[str, Submission] = {}
        self._waiting: Counter[str] = Counter()  # queued jobs by tenant
        self._running: Counter[str] = Counter()  # running jobs, and those on their way, by tenant
        self._counted: set[str] = set()  # jobs that are among the latter
        self._unsettled = 0  # jobs that have not ended, or are yet to be accepted
        self._parents: dict[str, Run] = {}  # of GPU stages: the job's run that waits
        self._may_hold: dict[str, bool] = {}  # queues that something may be in
        self._due: set[str] = set()
        self._placements: dict[str, str] = {}
        self._staged: Counter[str] = Counter()  # GPU stages that wait, by queue
        self._idle: dict[str, dict[str, Process]] = {}  # processes that are free, by what they ask for and their name

    def add(self, process: Process) -> None:
        """Let a process work from now on."""
        self.processes[process.name] = process
        self.note(process)

    def note(self, process: Process) -> None:
        """Find out whether a process is free, after something has changed for it."""
        idle = self._idle.setdefault(queue_of(process), {})
        idle.pop(process.name, None)
        if process.is_free:
            idle[process.name] = process

    def submit_all(self, jobs: Sequence[Submission]) -> None:
        """Let jobs be submitted, each at its moment."""
        self._unsettled = len(jobs)
        for job in jobs:
            self._jobs[job.job_id] = job
            self.events.at(job.at, lambda job=job: self._submit(job))  # type: ignore[misc]  # of a lambda with a default

    @property
    def is_database_away(self) -> bool:
        """Whether nobody reaches the database now."""
        return self.events.now < self.database_back

    def draw(self, seconds: float) -> float:
        """Return a moment between 0 and some seconds."""
        return float(self.rng.uniform(0.0, seconds))

    def sample(self, every: float) -> None:
        """Note how things stand, now and from now on until all jobs have ended."""
        busy: Counter[str] = Counter(run.job.gpu for run in self.runs.values() if run.is_stage)
        waiting = [tenant for tenant, count in self._waiting.items() if count]
        fairness = jain([float(self._running[tenant]) for tenant in waiting]) if len(waiting) > 1 else None
        self.journal.samples.append(
            Sample(
                at=self.events.now,
                queued=self._waiting.total(),
                running=self._running.total(),
                free_cpu=len(self._idle.get(QUEUE, {})),
                busy_gpus={gpu: busy[gpu] for gpu in self.deployment.gpus},
                waiting_stages={gpu: self._staged[gpu_queue(gpu)] for gpu in self.deployment.gpus},
                fairness=fairness,
            )
        )
        if self._unsettled:
            self.events.after(every, lambda: self.sample(every))

    # Submitting.

    def _submit(self, job: Submission) -> None:
        if self.is_database_away:
            self.journal.counts["submissions refused: database away"] += 1
            self.events.at(self.database_back + self.draw(_RETRY_SECONDS), lambda: self._submit(job))
            return
        config: dict[str, object] = {"target": "tensorrt", "gpu": job.gpu}
        check_place(config_from_json(config), self.members)
        new = NewJob(job.job_id, "tensorrt", config, {}, tenant=job.tenant, priority=job.priority)
        try:
            self.deps.store.create(new, admit=lambda connection: self.deps.store.admission.admit(connection, job.tenant, opens_gpu=True))
        except QuotaExceededError:
            self.journal.counts["submissions refused: limit"] += 1
            self.events.after(_RETRY_SECONDS + self.draw(_RETRY_SECONDS), lambda: self._submit(job))
            return
        self.journal.jobs[job.job_id] = JobTimes(job, self.events.now)
        self._waiting[job.tenant] += 1
        self.wake()

    # Handing over and claiming: whichever free process asks first.

    def wake(self, queue: str | None = None) -> None:
        """Let free processes ask, as each of them does again and again, where an answer may be there: of one queue, or the line."""
        if queue is not None:
            self._may_hold[queue] = True
        if self._waiting.total() and not self._may_hold.get(QUEUE):  # none is handed over while one is on its way
            self._ask("line", QUEUE, _ASK_SECONDS)
        self._ask_for_known_work()

    def wake_all(self) -> None:
        """Let free processes ask for all: workflows may have been put back into any queue."""
        for queue in (QUEUE, *map(gpu_queue, self.deployment.gpus)):
            self._may_hold[queue] = True
        self.wake()

    def on_enqueue(self, job_id: str) -> None:
        """Note that a process has enqueued a job: its turn has come."""
        job = self._jobs[job_id]
        if job_id not in self._counted:
            self.journal.turn(job.tenant, self._waiting, self._running)
            self._counted.add(job_id)
            self._waiting[job.tenant] -= 1
            self._running[job.tenant] += 1
        self._may_hold[QUEUE] = True

    def _ask_for_known_work(self) -> None:
        for name, may_hold in self._may_hold.items():
            if may_hold:
                self._ask(name, name, _POLL_SECONDS)

    def _ask(self, what: str, queue: str, period: float) -> None:
        free = len(self._idle.get(queue, {}))
        if free and what not in self._due:
            self._due.add(what)
            self.events.after(self.draw(period) / free, lambda: self._answer(what, queue))

    def _answer(self, what: str, queue: str) -> None:
        self._due.discard(what)
        free = list(self._idle[queue].values())
        if not free or self.is_database_away:
            return
        process = free[int(self.rng.integers(len(free)))]
        if not process.is_free:  # it has lost its lease just now
            self.note(process)
        elif what == "line":
            begun, before = time.perf_counter(), len(self._counted)
            process.dispatcher.hand_over()
            self.journal.handing_over_ms.append((time.perf_counter() - begun) * 1000)
            if len(self._counted) == before:
                self._ask_for_known_work()
                return
        else:
            claimed = self.engine.claim(queue, process.name)
            if claimed is None:
                self._may_hold[queue] = False
            elif queue == QUEUE:
                self._begin_job(process, *claimed)
            else:
                self._begin_stage(process, queue, *claimed)
        self.wake()

    # Running.

    def _begin_job(self, process: Process, job_id: str, token: str) -> None:
        job, now = self._jobs[job_id], self.events.now
        run = self._began(process, job_id, job, token)
        self.deps.store.holds.release(job_id)
        if not self.deps.store.start(job_id):
            self.engine.end(job_id, token)
            self.leave(run)
            return
        times = self.journal.jobs[job_id]
        if times.begun is not None:
            self.journal.counts["jobs taken over or resumed"] += 1
            run.recorded = self.engine.recorded(job_id)
        times.begun = now if times.begun is None else times.begun
        if job_id not in self._placements:
            gpu = placed_on(config_from_json(dict(self.deps.store.get(job_id).new.config)), self.members)
            assert gpu is not None
            self._placements[job_id] = gpu_queue(gpu)
        run.queue = self._placements[job_id]
        self.go_on(run)

    def _begin_stage(self, process: Process, queue: str, stage_id: str, token: str) -> None:
        job_id, _, number = stage_id.rpartition("/")
        run = self._began(process, stage_id, self._jobs[job_id], token)
        run.is_stage, run.number, run.queue = True, int(number), queue
        self._staged[queue] = max(0, self._staged[queue] - 1)
        self._compute(run)

    def _began(self, process: Process, workflow_id: str, job: Submission, token: str) -> Run:
        process.workflows.begin(workflow_id)
        run = Run(process, workflow_id, job, token, Tenure(process.deps), self.events.now)
        self.runs[process.name] = run
        self.note(process)
        self.journal.takes(workflow_id, process.name, self.events.now)
        return run

    def go_on(self, run: Run) -> None:
        """Let a job's run go to its next step that is not finished."""
        if run.is_over or self._is_held_up(run, lambda: self.go_on(run)):
            return
        if run.tenure.is_over():
            self.leave(run)
            return
        is_replay = bool(run.recorded)
        while run.number < len(run.job.steps):
            step, stage_id = run.job.steps[run.number], f"{run.job.job_id}/{run.number}"
            if not step.on_gpu and run.number not in run.recorded:
                self._compute(run)
                return
            if step.on_gpu and not ((is_replay or stage_id in self._parents) and self.engine.has_ended(stage_id)):
                if stage_id not in self._parents:
                    self._staged[run.queue] += 1
                self._parents[stage_id] = run
                self.engine.enqueue_stage(run.queue, stage_id, run.job.job_id, step.stage)
                self.wake(run.queue)
                return
            run.number += 1
        self.deps.store.succeed(run.job.job_id, {"outcome": "improved"}, "engine", {})
        self.engine.end(run.job.job_id, run.token)
        self.journal.jobs[run.job.job_id].ended = self.events.now
        self._running[run.job.tenant] -= 1
        self._unsettled -= 1
        self.leave(run)

    def leave(self, run: Run) -> None:
        """End a run in its process, whatever became of it; a step that it was in is broken off."""
        run.is_over = True
        if run.span is not None:
            self.journal.ends(run.span, self.events.now, run.job.gpu, is_finished=False)
            run.span = None
        if not run.is_stage:
            self.journal.jobs[run.job.job_id].cpu_seconds += self.events.now - run.begun
        self.journal.leaves(run.workflow_id, run.process.name, self.events.now)
        run.process.workflows.end()
        del self.runs[run.process.name]
        self.note(run.process)
        self.wake()

    def _compute(self, run: Run) -> None:
        """Let a process compute a step; while the store is away the job is on hold."""
        if run.is_over:
            return
        if self.events.now < self.store_back:
            self._hold(run)
            return
        step = run.job.steps[run.number]
        run.span = Span(run.job.job_id, run.number, run.process.name, step.on_gpu, self.events.now)
        self.journal.begins(run.span)
        self.events.after(step.seconds, lambda: self._computed(run, run.span))

    def _hold(self, run: Run) -> None:
        holds, job_id = self.deps.store.holds, run.job.job_id
        holds.put(job_id, Hold("shared folder: it is not there now", "Mount it.", self.events.present()))
        self.journal.counts["times on hold"] += 1

        def release() -> None:
            holds.release(job_id)
            self._compute(run)

        self.events.at(self.store_back + self.draw(_PAUSE_SECONDS), release)

    def _computed(self, run: Run, span: Span | None) -> None:
        """Record a step that has come to its end, if the process may still do that."""
        if run.is_over or span is None or run.span is not span or self._is_held_up(run, lambda: self._computed(run, span)):
            return
        if run.tenure.is_over():
            self.leave(run)
            return
        if self.events.now < self.store_back:  # what it wrote is not there
            self.journal.ends(span, self.events.now, run.job.gpu, is_finished=False)
            run.span = None
            self._hold(run)
            return
        step = run.job.steps[span.number]
        recorded = (
            self.engine.end(run.workflow_id, run.token)
            if run.is_stage
            else self.engine.record(run.workflow_id, span.number, step.stage, run.token)
        )
        if not recorded:
            self.journal.counts["records refused"] += 1
            self.leave(run)
            return
        self.journal.ends(span, self.events.now, run.job.gpu, is_finished=True)
        run.span = None
        if not run.is_stage:
            run.number += 1
            self.go_on(run)
            return
        self.leave(run)
        if (parent := self._parents.get(run.workflow_id)) is not None:
            self.events.after(self.draw(_POLL_SECONDS), lambda: self.go_on(parent))

    def _is_held_up(self, run: Run, then: object) -> bool:
        if run.process.is_connected and not self.is_database_away:
            return False
        run.held_up = then  # type: ignore[assignment]  # a function without arguments
        return True


def queue_of(process: Process) -> str:
    """Return the queue that a process listens to."""
    return QUEUE if process.member.gpu is None else gpu_queue(process.member.gpu)


_ASK_SECONDS = 0.25  # of the dispatcher, between two looks at the line
_POLL_SECONDS = 0.2  # of the engine, between two looks at a queue; also of a job that waits for its GPU stage
_PAUSE_SECONDS = 0.5  # of a job on hold, between two looks at the disk
_RETRY_SECONDS = 30.0  # of callers who were refused
