"""Kinds of faults of several processes: what each does to a fleet with a running job, and how the cause goes away again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping

from service.database.advisory_locks import lock_key
from tests.distributed.cut_network import Direction
from tests.distributed.fleet import LEASE_SECONDS, Fleet, FleetProcess
from tests.faults.server_process import FINISHED, wait_until
from tests.postgres_server import PostgresServer

Fault = Callable[[Fleet, PostgresServer, str, random.Random], None]
WORKERS = ("one", "two", "gpu")


def owner(fleet: Fleet, job: str) -> FleetProcess:
    """Return the cpu worker that has a job; any where it has none just now."""
    rows = fleet.query(f"SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = '{job}' AND status = 'PENDING'")
    name = str(rows[0][0]) if rows else "one"
    return fleet.processes[name if name in fleet.processes else "one"]


def end_owner(number: int, *, with_return: bool) -> Fault:
    def end(fleet: Fleet, _database: PostgresServer, job: str, rng: random.Random) -> None:
        process = owner(fleet, job)
        process.end(number, seconds=30)
        if not with_return:
            wait_until(lambda: owner(fleet, job) is not process or fleet.job(job).get("state") == "succeeded", 30, fleet.logs)
        process.launch()
        time.sleep(rng.uniform(0.0, 1.0))

    return end


def end_one(name: str, number: int) -> Fault:
    def end(fleet: Fleet, _database: PostgresServer, _job: str, _rng: random.Random) -> None:
        fleet.processes[name].end(number, seconds=30)
        fleet.processes[name].launch()

    return end


def kill_all_workers(fleet: Fleet, _database: PostgresServer, _job: str, _rng: random.Random) -> None:
    for name in WORKERS:
        fleet.processes[name].end()
    for name in WORKERS:
        fleet.processes[name].launch()


def suspend_owner(share: float) -> Fault:
    """Let the owner stand still for so many leases."""

    def suspend(fleet: Fleet, _database: PostgresServer, job: str, rng: random.Random) -> None:
        process = owner(fleet, job)
        process.send(signal.SIGSTOP)
        time.sleep(LEASE_SECONDS * share + rng.uniform(0.0, 1.0))
        process.send(signal.SIGCONT)

    return suspend


def end_lease_of_owner(fleet: Fleet, _database: PostgresServer, job: str, _rng: random.Random) -> None:
    key = lock_key(owner(fleet, job).name)
    fleet.query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 "
        f"AND ((classid::bigint << 32) | objid::bigint) = {key}"
    )


def end_all_sessions(fleet: Fleet, _database: PostgresServer, _job: str, _rng: random.Random) -> None:
    fleet.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")


def kill_database(fleet: Fleet, database: PostgresServer, _job: str, rng: random.Random) -> None:
    database.kill()
    time.sleep(rng.uniform(0.0, LEASE_SECONDS * 2))
    database.start()


def restart_database(fleet: Fleet, database: PostgresServer, _job: str, _rng: random.Random) -> None:
    database.stop()
    database.start()


def kill_database_and_owner(fleet: Fleet, database: PostgresServer, job: str, rng: random.Random) -> None:
    process = owner(fleet, job)
    database.kill()
    process.end()
    time.sleep(rng.uniform(0.0, 2.0))
    database.start()
    process.launch()


def start_twin(fleet: Fleet, _database: PostgresServer, job: str, rng: random.Random) -> None:
    process = owner(fleet, job)
    twin = FleetProcess(process.name, process.role, fleet, {})
    twin.log = fleet.folder / f"twin-{rng.random()}.log"
    assert twin.launch(fleet.folder / f"data-twin-{rng.random()}").wait(60) == 1


def upgrade(fleet: Fleet, _database: PostgresServer, job: str, _rng: random.Random) -> None:
    """Start a worker of another version beside the others; these finish what they began."""
    new = FleetProcess("new", "cpu", fleet, {})
    new.launch(version="fake-2")
    try:
        wait_until(lambda: "new" in fleet.holders(), 90, fleet.logs)
        time.sleep(2.0)
    finally:
        new.end(signal.SIGTERM, seconds=30)


def upgrade_without_the_old(fleet: Fleet, _database: PostgresServer, job: str, _rng: random.Random) -> None:
    """Stop the old workers and start one of another version alone, until the job has ended; its steps begin anew."""
    for name in WORKERS:
        fleet.processes[name].end(signal.SIGTERM, seconds=30)
    new = FleetProcess("new", "cpu", fleet, {})
    new.launch(version="fake-2")
    try:
        wait_until(lambda: fleet.job(job).get("state") in FINISHED, 120, lambda: fleet.logs() + new.log.read_text())
    finally:
        new.end(signal.SIGTERM, seconds=30)
        for name in WORKERS:
            fleet.processes[name].launch()


def cancel(fleet: Fleet, _database: PostgresServer, job: str, _rng: random.Random) -> None:
    assert fleet.client.post(f"/v1/jobs/{job}/cancel").json()["state"] in {"cancelled", "succeeded"}


def cancel_and_kill_owner(fleet: Fleet, database: PostgresServer, job: str, rng: random.Random) -> None:
    process = owner(fleet, job)
    cancel(fleet, database, job, rng)
    process.end()
    process.launch()


def kill_object_store(fleet: Fleet, _database: PostgresServer, _job: str, rng: random.Random) -> None:
    assert fleet.objects is not None
    fleet.objects.kill()
    time.sleep(rng.uniform(1.0, 5.0))
    fleet.objects.start()


def suspend_object_store(fleet: Fleet, _database: PostgresServer, _job: str, rng: random.Random) -> None:
    assert fleet.objects is not None
    fleet.objects.send(signal.SIGSTOP)
    time.sleep(rng.uniform(1.0, 5.0))
    fleet.objects.send(signal.SIGCONT)


def kill_object_store_and_owner(fleet: Fleet, _database: PostgresServer, job: str, rng: random.Random) -> None:
    assert fleet.objects is not None
    process = owner(fleet, job)
    fleet.objects.kill()
    process.end()
    time.sleep(rng.uniform(1.0, 3.0))
    fleet.objects.start()
    process.launch()


def damage_objects(fleet: Fleet, _database: PostgresServer, job: str, _rng: random.Random) -> None:
    """Damage all that is stored, then let another worker take the job over: it has to fetch the job's files."""
    assert fleet.objects is not None
    fleet.objects.damage(fleet.folder.name)
    process = owner(fleet, job)
    process.end()
    wait_until(lambda: owner(fleet, job) is not process or fleet.job(job).get("state") in FINISHED, 30, fleet.logs)
    process.launch()


def cut_network_of_owner(direction: Direction, share: float) -> Fault:
    """Let packets of the owner vanish for so many leases."""

    def cut(fleet: Fleet, _database: PostgresServer, job: str, rng: random.Random) -> None:
        network = fleet.networks[owner(fleet, job).name]
        network.cut(direction)
        time.sleep(LEASE_SECONDS * share * rng.uniform(1.0, 1.5))
        network.mend()

    return cut


# These need workers in networks of their own.
NETWORK_KINDS: Mapping[str, Fault] = {
    "network of the worker cut for less than its lease": cut_network_of_owner(Direction.BOTH, 0.2),
    "network of the worker cut for longer than its lease": cut_network_of_owner(Direction.BOTH, 3.0),
    "packets to the worker lost": cut_network_of_owner(Direction.TO_PROCESS, 3.0),
    "packets from the worker lost": cut_network_of_owner(Direction.FROM_PROCESS, 3.0),
}
# These need an object store; processes of the others share a folder.
OBJECT_KINDS: Mapping[str, Fault] = {
    "kill -9 of the worker, on an object store": end_owner(signal.SIGKILL, with_return=False),
    "kill -9 of the object store": kill_object_store,
    "object store suspended": suspend_object_store,
    "kill -9 of the object store and of the worker": kill_object_store_and_owner,
    "objects damaged, and kill -9 of the worker": damage_objects,
}
KINDS: Mapping[str, Fault] = {
    "kill -9 of the worker, which stays away": end_owner(signal.SIGKILL, with_return=False),
    "kill -9 of the worker, which comes back": end_owner(signal.SIGKILL, with_return=True),
    "SIGTERM to the worker": end_owner(signal.SIGTERM, with_return=True),
    "kill -9 of the gpu worker": end_one("gpu", signal.SIGKILL),
    "kill -9 of all workers": kill_all_workers,
    "kill -9 of the api": end_one("api", signal.SIGKILL),
    "worker suspended for less than its lease": suspend_owner(0.3),
    "worker suspended for longer than its lease": suspend_owner(2.0),
    "lease of the worker ended by the database": end_lease_of_owner,
    "all sessions ended by the database": end_all_sessions,
    "kill -9 of Postgres": kill_database,
    "restart of Postgres": restart_database,
    "kill -9 of Postgres and of the worker": kill_database_and_owner,
    "two workers of one name": start_twin,
    "another version starts in mid-job": upgrade,
    "only another version is there after": upgrade_without_the_old,
    "cancel on another process": cancel,
    "cancel, then kill -9 of the worker": cancel_and_kill_owner,
    **NETWORK_KINDS,
    **OBJECT_KINDS,
}
STEPS_ARE_LOST = frozenset({"only another version is there after"})  # recorded steps would not fit
