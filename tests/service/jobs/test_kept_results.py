"""What a server's second job finds of the first."""

from __future__ import annotations

from pathlib import Path

import psutil

from engine_builder.pipeline.stage_table import KEPT_STAGES
from service.jobs.resources import open_deps
from service.settings import Settings
from tests.fakes import executions
from tests.service.conftest import Server, running_server


def begun(server: Server) -> list[str]:
    return [name for event, name, _ in map(str.split, executions(server.record)) if event == "begin"]


def test_what_is_kept_is_not_computed_again_and_times_are(tmp_path: Path) -> None:
    with running_server(tmp_path, kept=frozenset({"inspect"})) as server:
        for _ in range(2):
            assert server.wait(server.submit(trials=1)["id"])["state"] == "succeeded"
        assert begun(server) == ["inspect", "trial/0", "report", "trial/0", "report"]
        assert server.wait(server.submit(trials=2)["id"])["state"] == "succeeded"
        assert begun(server)[5:] == ["inspect", "trial/0", "trial/1", "report"]


def test_without_room_nothing_is_kept(tmp_path: Path) -> None:
    with running_server(tmp_path, kept=frozenset({"inspect"}), cache_bytes=0) as server:
        for _ in range(2):
            server.wait(server.submit(trials=1)["id"])
        assert begun(server).count("inspect") == 2
        assert not (tmp_path / "data" / "cache").exists()


def test_a_server_that_stops_ends_the_parent_of_its_stages(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.wait(server.submit(trials=1)["id"])
        pid = server.deps.warm_parent.pid
        assert pid is not None
        assert executions(server.record)
    assert not psutil.pid_exists(pid)


def test_real_jobs_keep_what_the_table_says(tmp_path: Path) -> None:
    deps = open_deps(Settings(data_dir=tmp_path / "data"))
    try:
        assert deps.cache is not None
        assert {stage for stage in ("ranges", "sensitivity", "trial", "verdict") if deps.cache.keeps(stage)} == {"ranges", "sensitivity"}
        assert deps.pipeline.kept_stages == KEPT_STAGES
    finally:
        deps.close()
