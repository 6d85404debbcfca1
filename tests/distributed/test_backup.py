"""A backup as the operations page says it is made, brought back elsewhere: finished jobs are there, unfinished ones go on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.fleet import running_fleet
from tests.postgres_server import REASON, PostgresServer, binaries, running_postgres


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    found = binaries()
    if found is None:
        pytest.skip(REASON)
    with running_postgres(found) as server:
        yield server


@pytest.mark.long
def test_what_was_backed_up_goes_on_on_another_database_and_folder(database: PostgresServer, tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    with running_fleet(tmp_path / "before", database.create_database(), "one") as fleet:
        finished = fleet.submit(trials=2, seconds=0.1)
        assert fleet.wait(finished)["state"] == "succeeded"
        engine = fleet.client.get(f"/v1/jobs/{finished}/engine").content
        before = fleet.lines()
        running = fleet.submit(trials=3, seconds=1.0)
        waiting = fleet.submit(trials=1, seconds=0.1, mark="waits")
        fleet.wait_for_line("begin trial/1", after=before)
        for name in ("one", "api"):
            fleet.processes[name].end(signal.SIGTERM)
        done_before = {name for name in fleet.counts(before) if name.startswith("end ")}
        dump = database.dump(fleet.url)
        shutil.copytree(fleet.shared, tmp_path / "copy")

    url = database.create_database()
    database.restore(dump, url)
    shutil.copytree(tmp_path / "copy", tmp_path / "after" / "shared")
    with running_fleet(tmp_path / "after", url, "another") as fleet:
        assert fleet.client.get(f"/v1/jobs/{finished}/engine").content == engine
        for job in (running, waiting):
            assert fleet.wait(job)["state"] == "succeeded", fleet.logs()
        again = {name.replace("begin", "end") for name in fleet.counts() if name.startswith("begin ")}
        assert "end trial/0" in done_before
        assert "end trial/1" in again
        assert len(fleet.job(running)["trials"]) == 3  # type: ignore[arg-type]  # JSON
        ended = [line for line in fleet.counts().items() if line[0] == "end trial/0"]
        assert ended == [("end trial/0", 1)]  # of the job that had waited: the other one's was finished
