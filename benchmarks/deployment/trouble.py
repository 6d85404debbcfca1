"""Failures as they happen: what processes notice of them, and when, by the product's own intervals."""

from __future__ import annotations

from collections.abc import Sequence

from dbos import DBOS

from benchmarks.deployment.failures import Failure, Kind
from benchmarks.deployment.processes import Process
from benchmarks.deployment.run import Run
from benchmarks.deployment.simulation import Simulation
from service.jobs.execution.takeover import take_over


class Trouble:
    """Lets failures happen to a simulation."""

    def __init__(self, simulation: Simulation, lease_seconds: float) -> None:
        """Begin without any; ``lease_seconds`` is how long a lease lasts in silence."""
        self._simulation, self._events = simulation, simulation.events
        self._lease_seconds = lease_seconds
        self._incidents: dict[str, int] = {}  # by process: which one is the last, so that earlier ones change nothing

    def happen_all(self, failures: Sequence[Failure]) -> None:
        """Let each failure happen at its moment."""
        for failure in failures:
            self._events.at(failure.at, lambda failure=failure: self._happen(failure))  # type: ignore[misc]  # of a lambda with a default

    def _happen(self, failure: Failure) -> None:
        if failure.process is not None:
            process = self._simulation.processes[failure.process]
            if not process.is_up or not process.is_connected or self._simulation.is_database_away:
                return
            if failure.kind is Kind.KILL:
                self._kill(process, failure.seconds)
            else:
                self._cut(process, failure.seconds)
        elif failure.kind is Kind.DATABASE:
            self._take_database(failure.seconds)
        else:
            self._simulation.store_back = self._events.now + failure.seconds
        self._simulation.journal.counts[failure.kind.value] += 1

    # A process dies: its session ends with it.

    def _kill(self, process: Process, seconds: float) -> None:
        self._begin_incident(process)
        process.is_up = False
        self._end_run(process)
        process.leave()
        self._simulation.note(process)
        self._sweep_soon()
        self._events.after(seconds, lambda: self._start(process))

    def _start(self, process: Process) -> None:
        if self._simulation.is_database_away:
            self._events.at(self._simulation.database_back + self._simulation.draw(_RETAKE_SECONDS), lambda: self._start(process))
            return
        process.join()
        DBOS._recover_pending_workflows([process.name])  # as the engine does when a process of a name starts
        self._simulation.note(process)
        self._simulation.wake_all()

    # A process is cut off: it counts its lease as gone before the server does.

    def _cut(self, process: Process, seconds: float) -> None:
        incident = self._begin_incident(process)
        heard = self._events.now - self._simulation.draw(self._lease_seconds * _ASK_SHARE)
        process.is_connected = False
        process.lease.fall_silent(heard)
        self._simulation.note(process)
        self._watch_silence(process, incident)
        self._events.at(heard + self._lease_seconds, lambda: self._free_lock(process, incident))
        self._events.after(seconds, lambda: self._reconnect(process, incident))

    def _watch_silence(self, process: Process, incident: int) -> None:
        """Let the run of a process that is cut off ask whether it may go on, as it does all the time."""
        if self._incidents[process.name] != incident or process.is_connected:
            return
        run = self._simulation.runs.get(process.name)
        if run is not None and run.tenure.is_over():
            self._end_run(process)
        elif run is not None:
            self._events.after(_QUESTION_SECONDS, lambda: self._watch_silence(process, incident))

    def _free_lock(self, process: Process, incident: int) -> None:
        if self._incidents[process.name] == incident and not process.is_connected:
            process.forget_session()
            self._sweep_soon()

    def _reconnect(self, process: Process, incident: int) -> None:
        if self._incidents[process.name] != incident or self._simulation.is_database_away:
            return  # the return of the database will find it
        process.is_connected = True
        if process.has_session:
            process.lease.is_heard = True
        else:
            self._end_run(process)
            process.leave()
            process.join()
        self._go_on(process)

    # The database goes away, and all sessions with it.

    def _take_database(self, seconds: float) -> None:
        simulation, now = self._simulation, self._events.now
        simulation.database_back = now + seconds
        for process in simulation.processes.values():
            if not process.is_up:
                continue
            incident = self._begin_incident(process)
            process.forget_session()
            noticed = now + simulation.draw(self._lease_seconds * _ASK_SHARE)
            self._events.at(noticed, lambda process=process, incident=incident: self._lose_session(process, incident))  # type: ignore[misc]
            back = max(noticed, simulation.database_back) + simulation.draw(_RETAKE_SECONDS)
            self._events.at(back, lambda process=process, incident=incident: self._rejoin(process, incident))  # type: ignore[misc]
        for look in range(3):  # whoever died meanwhile is found dead
            self._events.at(simulation.database_back + (look + 1) * self._lease_seconds * _SWEEP_SHARE, self._sweep)

    def _lose_session(self, process: Process, incident: int) -> None:
        if self._incidents[process.name] == incident:
            process.leave()
            self._end_run(process)
            self._simulation.note(process)

    def _rejoin(self, process: Process, incident: int) -> None:
        if self._incidents[process.name] == incident:
            process.join()
            self._go_on(process)

    # What the living do.

    def _go_on(self, process: Process) -> None:
        """Let a process that has its lease go on, and look twice for what it had begun and runs no longer."""
        simulation = self._simulation
        run = simulation.runs.get(process.name)
        if run is not None and run.held_up is not None:
            then, run.held_up = run.held_up, None
            then()
        simulation.note(process)
        first = simulation.draw(_LOOK_SECONDS)
        for moment in (first, first + _LOOK_SECONDS):
            self._events.after(moment, lambda: self._look(process))
        simulation.wake()

    def _look(self, process: Process) -> None:
        if process.is_up and process.is_connected and not self._simulation.is_database_away:
            process.dispatcher.look()
            self._simulation.journal.counts["looks"] += 1
            self._simulation.wake_all()

    def _sweep_soon(self) -> None:
        """Let whichever of the living looks first look for the dead; again after a whole period, when all have looked."""
        period = self._lease_seconds * _SWEEP_SHARE
        self._events.after(self._simulation.draw(period) / len(self._simulation.processes), self._sweep)
        self._events.after(period, self._sweep)

    def _sweep(self) -> None:
        simulation = self._simulation
        living = [one for one in simulation.processes.values() if one.is_up and one.is_connected and one.lease.number() is not None]
        if simulation.is_database_away or not living:
            return
        sweeper = living[int(simulation.rng.integers(len(living)))]
        dead = take_over(simulation.members, sweeper.name)
        simulation.journal.counts["processes taken over from"] += len(dead)
        if dead:
            simulation.wake_all()

    def _begin_incident(self, process: Process) -> int:
        self._incidents[process.name] = self._incidents.get(process.name, 0) + 1
        return self._incidents[process.name]

    def _end_run(self, process: Process) -> None:
        run: Run | None = self._simulation.runs.get(process.name)
        if run is not None:
            self._simulation.leave(run)


_ASK_SHARE = 0.2  # of a lease: between two questions of a process whether its session lives
_SWEEP_SHARE = 0.2  # of a lease: between two looks for the dead
_LOOK_SECONDS = 5.0  # between two looks of a process for what nobody works on
_QUESTION_SECONDS = 0.25  # between two questions of a running stage whether it may go on
_RETAKE_SECONDS = 0.5  # between two tries to take a lease
