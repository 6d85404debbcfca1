"""``python -m tests.distributed.table``: faults of several processes at seeded moments, as a table; exits 1 if anything was lost."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests import object_store_server
from tests.distributed.cut_network import NoNetworkError, cut_network
from tests.distributed.fleet import Fleet, running_fleet
from tests.distributed.kinds import KINDS, NETWORK_KINDS, OBJECT_KINDS, STEPS_ARE_LOST, Fault
from tests.fakes import executions
from tests.faults.experiment import LONGEST_SECONDS, TRIALS, Outcome
from tests.faults.server_process import FINISHED, wait_until
from tests.faults.table import HEAD, row, say
from tests.postgres_server import REASON, PostgresServer, binaries, running_postgres

GPU = "RTX 4090"
_CPU_WORKERS = ("one", "two")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    found, store = binaries(), object_store_server.binary()
    if found is None or store is None:
        say(REASON if found is None else object_store_server.REASON)
        return 1
    for line in HEAD:
        say(line)
    is_sound = True
    left = list(options.kinds or KINDS)
    try:
        with cut_network():
            pass
    except NoNetworkError as error:
        for kind in [kind for kind in left if kind in NETWORK_KINDS]:
            left.remove(kind)
            is_sound = False
            say(row(kind, (), f"not possible here: {error}"))
    while left:
        needs = _needs(left[0])
        with ExitStack() as opened:
            networks = {name: opened.enter_context(cut_network()) for name in _CPU_WORKERS} if needs is NETWORK_KINDS else {}
            database = opened.enter_context(running_postgres(found, *(network.own for network in networks.values())))
            objects = opened.enter_context(object_store_server.running_object_store(store)) if needs is OBJECT_KINDS else None
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True))
            fleet = opened.enter_context(
                running_fleet(Path(folder), database.create_database(), *_CPU_WORKERS, gpu=GPU, objects=objects, networks=networks)
            )
            remark = ""
            while left and not remark and _needs(left[0]) is needs:  # the same as long as they outlast their faults
                kind = left.pop(0)
                outcomes, remark = _outcomes(fleet, database, kind, options.seed, options.trials)
                is_sound &= not any(one.is_lost or one.finished_again or one.orphans for one in outcomes) and not remark
                say(row(kind, outcomes, remark))
    return 0 if is_sound else 1


def _needs(kind: str) -> Mapping[str, Fault]:
    """Return the group of kinds that need the same machinery as this one."""
    return next(group for group in (OBJECT_KINDS, NETWORK_KINDS, KINDS) if kind in group)


def experiment(fleet: Fleet, database: PostgresServer, kind: str, seed: int) -> Outcome:
    """Submit a job, every second one of them for a GPU, make the fault at a random moment of it, and wait for its end."""
    rng = random.Random(f"{kind} {seed}")
    before = fleet.lines()
    config = {"target": "tensorrt-rtx", "gpu": GPU} if (seed % 2 or "gpu" in kind) and kind not in STEPS_ARE_LOST else {}
    job = fleet.submit(json.dumps(config), trials=TRIALS, seconds=0.6)
    wait_until(lambda: fleet.lines() > before, 30, fleet.logs)
    time.sleep(rng.uniform(0.0, 2.5))
    finished = [line.split()[1] for line in executions(fleet.record)[before:] if line.startswith("end")][:-1]  # the last may not be noted
    KINDS[kind](fleet, database, job, rng)
    gone, lines = time.monotonic(), fleet.lines()
    wait_until(lambda: fleet.lines() > lines or _state(fleet, job) in FINISHED, LONGEST_SECONDS, fleet.logs)
    still = time.monotonic() - gone
    wait_until(lambda: _state(fleet, job) in FINISHED, LONGEST_SECONDS, fleet.logs)
    state = _state(fleet, job)
    begun = Counter(line.split()[1] for line in executions(fleet.record)[before:] if line.startswith("begin"))
    again = () if kind in STEPS_ARE_LOST else tuple(sorted(name for name in finished if begun[name] > 1))
    fleet.wait_until_up()
    trials = fleet.job(job)["trials"]
    assert isinstance(trials, list)
    expected = {"succeeded", "cancelled"} if kind.startswith("cancel") else {"succeeded"}
    error = fleet.job(job)["error"]
    if kind.startswith("objects damaged") and isinstance(error, dict) and str(error["type"]).endswith("artifact-damaged"):
        expected = {"failed"}  # which says which file it was
    ends = fleet.query(f"SELECT count(*) FROM job_events WHERE job_id = '{job}' AND kind = 'end'")
    is_lost = state not in expected or any(trial["failure"] for trial in trials) or ends != [(1,)]
    return Outcome(state, is_lost, again, sum(begun.values()) - len(begun), _orphans(fleet), still)


def _outcomes(fleet: Fleet, database: PostgresServer, kind: str, seed: int, trials: int) -> tuple[list[Outcome], str]:
    outcomes: list[Outcome] = []
    try:
        for number in range(seed, seed + trials):
            outcomes.append(experiment(fleet, database, kind, number))
    except AssertionError as error:
        return outcomes, f"stood still for ever: {' '.join(str(error).split())[-300:]}"
    return outcomes, ""


def _state(fleet: Fleet, job: str) -> str:
    return str(fleet.job(job).get("state"))


def _orphans(fleet: Fleet) -> tuple[str, ...]:
    """Return files of the job that are left a while after its end."""
    until = time.monotonic() + 15
    while (left := fleet.left_files()) and time.monotonic() < until:
        time.sleep(0.2)
    return tuple(left)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3, help="moments of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=tuple(KINDS), metavar="KIND", help="only these")
    return parser


if __name__ == "__main__":
    sys.exit(main())
