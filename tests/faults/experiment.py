"""One fault at one seeded moment of a job: what was lost, what ran again, and how long the job stood still."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass

from tests.fakes import executions
from tests.faults.kinds import KINDS, STEPS_ARE_LOST
from tests.faults.server_process import FINISHED, ServerProcess, wait_until

TRIALS = 3
LONGEST_SECONDS = 90.0  # for a job to end after the fault


@dataclass(frozen=True)
class Outcome:
    """What became of the job.

    Attributes:
        state: In which it ended.
        is_lost: It did not end as it should have.
        finished_again: Steps that had finished before the fault and ran again.
        runs_again: Runs of steps beyond the first.
        orphans: Processes and files that nobody needs, left when the job had ended.
        still_seconds: From the moment when the cause was gone to the next step that began or ended.
    """

    state: str
    is_lost: bool
    finished_again: tuple[str, ...]
    runs_again: int
    orphans: tuple[str, ...]
    still_seconds: float


def experiment(server: ServerProcess, kind: str, seed: int) -> Outcome:
    """Submit a job to a running server, make the fault at a random moment of it, and wait for its end.

    Raises:
        ImpossibleHereError: This machine does not let the fault be made.
    """
    rng = random.Random(f"{kind} {seed}")
    before = len(executions(server.record))
    job = server.submit(trials=TRIALS, seconds=0.4)
    wait_until(lambda: len(executions(server.record)) > before, 30, server.log.read_text)
    time.sleep(rng.uniform(0.0, 2.0))
    finished = [line.split()[1] for line in executions(server.record)[before:] if line.startswith("end")][:-1]  # the last may not be noted
    KINDS[kind](server, job, rng)
    gone, lines = time.monotonic(), len(executions(server.record))
    wait_until(lambda: len(executions(server.record)) > lines or _state(server, job) in FINISHED, LONGEST_SECONDS, server.log.read_text)
    still = time.monotonic() - gone
    wait_until(lambda: _state(server, job) in FINISHED, LONGEST_SECONDS, server.log.read_text)
    state = _state(server, job)
    begun = Counter(line.split()[1] for line in executions(server.record)[before:] if line.startswith("begin"))
    again = () if kind in STEPS_ARE_LOST else tuple(sorted(name for name in finished if begun[name] > 1))
    failures = [trial.get("failure") for trial in server.trials(job)]
    may_be_cancelled = kind.startswith("cancel")
    is_lost = state not in ({"succeeded", "cancelled"} if may_be_cancelled else {"succeeded"}) or any(failures)
    return Outcome(state, is_lost, again, sum(begun.values()) - len(begun), server.orphans(), still)


def _state(server: ServerProcess, job: str) -> str:
    return str(server.job(job).get("state"))
