from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from engine_builder.workspace.workspace import Workspace
from service.worker.job_record import JobRecord
from service.worker.stage_cache import StageCache

JOB, OTHER_JOB = "a" * 64, "b" * 64


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path / "cache", "1", {"ranges"})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def giving(value: int) -> Callable[[], Mapping[str, object]]:
    return lambda: {"value": value}


def never() -> Mapping[str, object]:
    raise AssertionError("it was done before")


def test_the_next_run_of_the_job_finds_what_the_last_one_did(cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as record:
        assert record.done == 0
        assert record.run("ranges", "ranges", {}, workspace, giving(1)) == ({"value": 1}, False)
        assert record.run("trial/0", "trial", {}, workspace, giving(2)) == ({"value": 2}, False)
    with JobRecord(cache, JOB) as record:
        assert record.done == 2
        assert record.run("ranges", "ranges", {}, workspace, never) == ({"value": 1}, True)
        assert record.run("trial/0", "trial", {}, workspace, never) == ({"value": 2}, True)


def test_files_of_a_result_are_there_again(cache: StageCache, workspace: Workspace, tmp_path: Path) -> None:
    def build() -> Mapping[str, object]:
        ref = workspace.write_bytes("engine.onnx", b"engine")
        return {"engine": {"file": ref.file, "sha256": ref.sha256}}

    with JobRecord(cache, JOB) as record:
        record.run("trial/0", "trial", {}, workspace, build)
    again = Workspace(tmp_path / "again")
    with JobRecord(cache, JOB) as record:
        record.run("trial/0", "trial", {}, again, never)
    assert again.path("engine.onnx").read_bytes() == b"engine"


def test_times_of_another_job_or_of_another_run_of_the_stage_are_not_used(cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as record:
        record.run("trial/0", "trial", {}, workspace, giving(1))
        record.run("ranges", "ranges", {}, workspace, giving(2))
        assert record.run("trial/1", "trial", {}, workspace, giving(3)) == ({"value": 3}, False)
    with JobRecord(cache, OTHER_JOB) as record:
        assert record.done == 0
        assert record.run("trial/0", "trial", {}, workspace, giving(4)) == ({"value": 4}, False)
        assert record.run("ranges", "ranges", {}, workspace, never) == ({"value": 2}, True)


def test_another_request_is_computed_anew(cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as record:
        record.run("trial/0", "trial", {"layers": 1}, workspace, giving(1))
        assert record.run("trial/0", "trial", {"layers": 2}, workspace, giving(2)) == ({"value": 2}, False)


def test_a_job_that_ended_measures_its_times_again_and_leaves_only_what_others_may_use(cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as record:
        record.run("ranges", "ranges", {}, workspace, giving(1))
        record.run("trial/0", "trial", {}, workspace, giving(2))
    with JobRecord(cache, JOB) as record:
        record.forget()  # by the next run, which knows of the first one's results from the file
    with JobRecord(cache, JOB) as record:
        assert record.done == 0
        assert record.run("ranges", "ranges", {}, workspace, never) == ({"value": 1}, True)
        assert record.run("trial/0", "trial", {}, workspace, giving(3)) == ({"value": 3}, False)


def test_two_runs_of_one_job_at_once_do_not_share_times(cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as first, JobRecord(cache, JOB) as second:
        first.run("trial/0", "trial", {}, workspace, giving(1))
        assert second.done == 0
        assert second.run("trial/0", "trial", {}, workspace, giving(2)) == ({"value": 2}, False)
        second.forget()
        assert first.run("trial/0", "trial", {}, workspace, never) == ({"value": 1}, True)


def test_a_stage_that_fails_is_not_noted(cache: StageCache, workspace: Workspace) -> None:
    def fail() -> Mapping[str, object]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), JobRecord(cache, JOB) as record:
        record.run("trial/0", "trial", {}, workspace, fail)
    with JobRecord(cache, JOB) as record:
        assert record.done == 0


def test_a_line_that_a_kill_cut_off_and_a_result_that_is_gone_do_not_count(cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as record:
        for index in range(3):
            record.run(f"trial/{index}", "trial", {}, workspace, giving(index))
    path = cache.root / "unfinished-jobs" / JOB
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20])
    cache.forget(cache.key("trial", {}, workspace, job=f"{JOB} trial/0"))
    with JobRecord(cache, JOB) as record:
        assert record.done == 1


def test_records_that_nobody_continued_go_after_a_month(cache: StageCache) -> None:
    for job, days in ((JOB, 31), (OTHER_JOB, 29)):
        with JobRecord(cache, job):
            pass
        path = cache.root / "unfinished-jobs" / job
        os.utime(path, (time.time() - days * 86400,) * 2)
    with JobRecord(cache, "c" * 64):
        assert {path.name for path in (cache.root / "unfinished-jobs").iterdir()} == {OTHER_JOB, "c" * 64}


def test_a_folder_that_cannot_be_written_gives_no_record_and_no_error(cache: StageCache, workspace: Workspace) -> None:
    (cache.root / "unfinished-jobs").write_text("no folder")
    with JobRecord(cache, JOB) as record:
        assert record.run("trial/0", "trial", {}, workspace, giving(1)) == ({"value": 1}, False)
        assert record.run("ranges", "ranges", {}, workspace, giving(2)) == ({"value": 2}, False)
        assert record.run("ranges", "ranges", {}, workspace, never) == ({"value": 2}, True)


@pytest.mark.parametrize("damage", [b"null\n", b"\xff\xfe\n", b"[1, 2]\n", b"3\n"])
def test_a_damaged_line_is_passed_over(damage: bytes, cache: StageCache, workspace: Workspace) -> None:
    with JobRecord(cache, JOB) as record:
        record.run("trial/0", "trial", {}, workspace, giving(2))
    (file,) = (path for path in cache.root.rglob(JOB) if path.is_file())
    with file.open("ab") as stream:
        stream.write(damage)
    with JobRecord(cache, JOB) as record:
        assert record.run("trial/0", "trial", {}, workspace, never) == ({"value": 2}, True)
