"""Runs one simulation on a database of its own, from the first submission to the end of the last job."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from dbos import DBOS

from benchmarks.deployment.engine import Engine
from benchmarks.deployment.events import Events
from benchmarks.deployment.failures import Failure, Rates, failures
from benchmarks.deployment.journal import Journal
from benchmarks.deployment.processes import Process, SimulatedMembers
from benchmarks.deployment.recorded import recorded_jobs
from benchmarks.deployment.simulation import Simulation
from benchmarks.deployment.trouble import Trouble
from benchmarks.deployment.workload import Deployment, Submission, submissions, tenant_name
from service.database.members import Member
from service.database.role import Role
from service.jobs.execution.placement import gpu_queue
from service.jobs.resources import Deps, open_deps
from service.jobs.workflow import Workflows
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulation that has come to its end."""

    deployment: Deployment
    jobs: tuple[Submission, ...]
    failures: tuple[Failure, ...]
    journal: Journal
    states: dict[str, int]  # how many jobs the jobs table has in which state
    span: float  # simulated seconds to the last submission
    seconds: float  # simulated seconds to the end of the last job
    wall_seconds: float  # that the simulation took


def simulate(count: int, seed: int, deployment: Deployment, rates: Rates, settings: Settings | None = None) -> Outcome:
    """Simulate a deployment until all of its jobs have ended.

    Args:
        count: How many jobs.
        seed: All that is drawn follows from it.
        deployment: Processes, tenants, load.
        rates: How much goes wrong.
        settings: The product's, with another length of leases, say.
    """
    seeds = np.random.SeedSequence(seed).spawn(3)
    jobs = submissions(count, deployment, recorded_jobs(), np.random.default_rng(seeds[0]))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-deployment-") as folder:
        settings = replace(settings or Settings(), data_dir=Path(folder), tenant_running_jobs=deployment.running_jobs)
        events = Events()
        with _opened(settings, events, deployment) as (deps, workflows, engine, members):
            simulation = Simulation(deployment, deps, engine, members, events, np.random.default_rng(seeds[1]))
            members_of_all = tuple(_members_of(deployment, deps.pipeline.version))
            members.note_all(members_of_all)
            for member in members_of_all:
                simulation.add(Process(member, deps, members, workflows, events.seconds, simulation.on_enqueue))
            for tenant in range(0, deployment.tenants, 10):
                deps.store.tenants.ensure(tenant_name(tenant + 9))
                deps.store.tenants.change(tenant_name(tenant + 9), {"jobs_at_once": deployment.limited_jobs})
            span = jobs[-1].at
            planned = failures(rates, [member.name for member in members_of_all], span, np.random.default_rng(seeds[2]))
            simulation.submit_all(jobs)
            Trouble(simulation, settings.lease_seconds).happen_all(planned)
            simulation.sample(max(span / 400, 1.0))
            with _rare_collection():
                events.run()
            states = {state.value: number for state, number in deps.store.counts().items()}
    ended = max((times.ended or 0.0 for times in simulation.journal.jobs.values()), default=0.0)
    return Outcome(deployment, jobs, planned, simulation.journal, states, span, ended, time.perf_counter() - begun)


@contextmanager
def _opened(settings: Settings, events: Events, deployment: Deployment) -> Iterator[tuple[Deps, Workflows, Engine, SimulatedMembers]]:
    """Give the product's belongings, on a database of their own, with the engine launched as that of a process without a queue."""
    deps = open_deps(settings, clock=events.present)
    try:
        sa.event.listen(deps.store.engine, "connect", _hurry)
        deps.store.engine.dispose()
        members = SimulatedMembers(deps.store.engine)
        observer = Member("observer", Role.GPU, deps.pipeline.version, "simulated", 0)
        process = Process(observer, deps, members, Workflows(deps), events.seconds, lambda _: None)
        workflows = Workflows(process.deps)
        workflows.launch()
        try:
            engine = Engine(deps.database_url, deps.pipeline.version, tuple(map(gpu_queue, deployment.gpus)))
            try:
                for one in engine.engines:
                    sa.event.listen(one, "connect", _hurry)
                    one.dispose()
                with _quiet():
                    yield process.deps, workflows, engine, members
            finally:
                engine.close()
        finally:
            DBOS.destroy(destroy_registry=True)
    finally:
        deps.close()


def _members_of(deployment: Deployment, version: str) -> Iterator[Member]:
    for number in range(deployment.cpu_workers):
        yield Member(f"cpu-{number}", Role.CPU, version, "simulated", 0)
    for gpu, count in deployment.gpus.items():
        for number in range(count):
            yield Member(f"{gpu}-{number}", Role.GPU, version, "simulated", 0, gpu)


def _hurry(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, for which SQLAlchemy has no type
    cursor.execute("PRAGMA synchronous=OFF")  # this database is not to outlast anything
    cursor.close()


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Look for garbage less often: statements leave much of it, and a tenth of the time goes into looking."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the product say nothing of processes that die by the hundred."""
    logger = logging.getLogger("service")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
