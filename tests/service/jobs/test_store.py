from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine_builder.workspace.workspace import FileRef
from service.errors import IllegalMoveError, InvalidRequestError, NotFoundError, RemovedError
from service.jobs.job_table import prepare
from service.jobs.records import JobState, NewJob, StoredFile
from service.jobs.store import JobStore
from tests.fakes import FakeClock

MODEL = FileRef("inputs/model.onnx", "a" * 64)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    """A store in each kind of database: all that is promised holds in both."""
    own = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    store = JobStore(own if request.param == "sqlite" else request.getfixturevalue("postgres").create_database(), FakeClock())
    yield store
    store.close()


def new_job(job_id: str, key: str | None = None, request: str = "r", tenant: str = "default") -> NewJob:
    return NewJob(job_id, "onnxruntime-cpu", {"threads": 1}, {"model": MODEL}, key, request, tenant)


def test_job_is_read_as_it_was_written(store: JobStore) -> None:
    written, is_new = store.create(new_job("one", key="k"))
    assert is_new
    assert store.get("one") == written
    assert written.new == new_job("one", key="k")
    assert written.state is JobState.QUEUED


def test_unknown_job_is_not_found(store: JobStore) -> None:
    for ask in (store.get, store.state, store.cancel):
        with pytest.raises(NotFoundError):
            ask("none")


def test_same_key_and_request_give_the_first_job(store: JobStore) -> None:
    store.create(new_job("one", key="k"))
    again, is_new = store.create(new_job("two", key="k"))
    assert (again.id, is_new) == ("one", False)
    assert len(store.list()) == 1


def test_same_key_for_another_request_is_refused(store: JobStore) -> None:
    store.create(new_job("one", key="k"))
    with pytest.raises(InvalidRequestError, match="used for another request"):
        store.create(new_job("two", key="k", request="other"))


def test_jobs_without_a_key_are_all_new(store: JobStore) -> None:
    assert store.create(new_job("one"))[1]
    assert store.create(new_job("two"))[1]


def test_list_is_newest_first_and_pages_by_sequence(store: JobStore) -> None:
    for name in "abcd":
        store.create(new_job(name))
    store.start("b")
    first = store.list(limit=2)
    assert [job.id for job in first] == ["d", "c"]
    assert [job.id for job in store.list(limit=2, before=first[-1].sequence)] == ["b", "a"]
    assert [job.id for job in store.list(states=(JobState.RUNNING,))] == ["b"]


def test_rows_say_how_jobs_went_and_page_as_the_list_does(store: JobStore) -> None:
    for name in "abc":
        store.create(new_job(name))
    store.start("a")
    store.succeed("a", {"outcome": "improved", "speedup": 1.5}, "engine.onnx", {})
    rows = store.rows(limit=2)
    assert [(row.id, row.state, row.outcome) for row in rows] == [("c", JobState.QUEUED, None), ("b", JobState.QUEUED, None)]
    last = store.rows(limit=2, before=rows[-1].sequence)
    assert [(row.id, row.outcome, row.speedup) for row in last] == [("a", "improved", 1.5)]
    assert [row.id for row in store.rows(states=(JobState.SUCCEEDED,), limit=9)] == ["a"]


def test_rows_have_the_speed_up_that_is_predicted(store: JobStore) -> None:
    predicted = {"value": 1.5, "range": [1.25, 1.75]}
    store.create(new_job("a"))
    store.start("a")
    store.succeed("a", {"outcome": "improved", "predicted_speedup": predicted}, "engine.plan", {})
    ((speedup, shown),) = ((row.speedup, row.predicted_speedup) for row in store.rows(limit=2))
    assert (speedup, shown) == (None, predicted)


def test_rows_of_a_state_are_found_by_an_index(tmp_path: Path) -> None:
    """Without one the database reads every job, with all that belongs to it."""
    JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock()).close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE state IN ('running') AND sequence < 9 ORDER BY sequence DESC LIMIT 5"
        ).fetchall()
    assert "USING INDEX ix_jobs_state (state=? AND rowid<?)" in str(plan)
    assert "TEMP B-TREE" not in str(plan)


def test_figures_are_read_from_indexes_alone(tmp_path: Path) -> None:
    """So they cost little with many jobs, whose results are long."""
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    asked: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    store.counts()
    store.durations()
    store.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        plans = [str(connection.execute(f"EXPLAIN QUERY PLAN {one}", [None] * one.count("?")).fetchall()) for one in asked]
    assert len(plans) == 2
    assert "USING COVERING INDEX ix_jobs_line" in plans[0]
    assert "USING COVERING INDEX ix_jobs_times" in plans[1]


def test_a_page_of_the_list_is_chosen_before_results_are_read(store: JobStore) -> None:
    asked: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    store.rows(limit=2)
    chosen = asked[-1].partition("FROM jobs JOIN (SELECT jobs.sequence")[2].partition(")")[0]
    assert "LIMIT" in chosen
    assert "result" not in chosen


def test_indexes_of_an_earlier_version_are_gone(store: JobStore) -> None:
    with store.engine.begin() as connection:
        connection.execute(sa.text("CREATE INDEX ix_jobs_parent ON jobs (parent)"))
    prepare(store.engine)
    names = {str(index["name"]) for index in sa.inspect(store.engine).get_indexes("jobs")}
    assert "ix_jobs_parent" not in names
    assert {"ix_jobs_line", "ix_jobs_times", "ix_jobs_branches"} <= names


def test_removed_job_is_gone_and_says_why(store: JobStore) -> None:
    store.create(new_job("one"))
    assert store.remove("one", "it was deleted") is None
    store.start("one")
    assert store.remove("one", "it was deleted") is None
    store.cancel("one")
    assert store.remove("one", "it was deleted") == frozenset()
    for ask in (store.get, store.state, store.cancel):
        with pytest.raises(RemovedError, match="job one: it was deleted, at 2026-11-23 10:00 UTC"):
            ask("one")
    assert store.rows(limit=9) == ()
    assert store.events.after("one", 0) == ()


def test_a_file_goes_with_the_last_job_that_has_it(store: JobStore) -> None:
    for name, digests in (("one", "ab"), ("two", "bc")):
        store.create(new_job(name))
        store.start(name)
        store.succeed(name, {}, "a", {digest: StoredFile(digest * 64, 3) for digest in digests})
    assert store.file_uses.all() == {digest * 64 for digest in "abc"}
    assert store.remove("one", "it was deleted") == frozenset({"a" * 64})
    assert store.remove("two", "it was deleted") == frozenset({"b" * 64, "c" * 64})
    assert store.file_uses.all() == frozenset()


def test_files_of_jobs_of_an_earlier_version_are_counted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    first = JobStore(url, FakeClock())
    first.create(new_job("one"))
    first.start("one")
    first.succeed("one", {}, "a", {"a": StoredFile("a" * 64, 3)})
    first.close()
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("DROP TABLE job_files")
    again = JobStore(url, FakeClock())
    assert again.file_uses.all() == {"a" * 64}
    again.close()


def test_started_job_stays_running_when_started_again(store: JobStore) -> None:
    store.create(new_job("one"))
    assert store.start("one")
    assert store.start("one")
    assert store.get("one").started_at is not None


def test_cancelled_job_does_not_start(store: JobStore) -> None:
    store.create(new_job("one"))
    assert store.cancel("one") is JobState.QUEUED
    assert not store.start("one")


def test_progress_never_decreases_and_keeps_its_stage(store: JobStore) -> None:
    store.create(new_job("one"))
    store.start("one")
    store.advance("one", "search", 0.5)
    store.advance("one", "inspect", 0.1)
    assert (store.get("one").stage, store.get("one").progress) == ("search", 0.5)


def test_replayed_trials_do_not_hide_those_that_came_later(store: JobStore) -> None:
    store.create(new_job("one"))
    store.start("one")
    store.record_trials("one", [{"index": 0}, {"index": 1}], best=1)
    store.record_trials("one", [{"index": 0}], best=0)
    assert (len(store.get("one").trials), store.get("one").best) == (2, 1)
    store.restart_search("one")
    assert (store.get("one").trials, store.get("one").best) == ((), None)


def test_what_outputs_are_taken_for_is_known_once_it_is_noted(store: JobStore) -> None:
    store.create(new_job("one"))
    store.record_outputs("one", [{"name": "too early"}])
    assert store.get("one").outputs is None
    store.start("one")
    store.record_outputs("one", [{"name": "y"}])
    assert store.get("one").outputs == ({"name": "y"},)
    store.restart_search("one")
    assert store.get("one").outputs is None


def test_the_table_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    first = JobStore(url, FakeClock())
    first.create(new_job("one"))
    first.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN outputs"))
    engine.dispose()
    again = JobStore(url, FakeClock())
    again.start("one")
    again.record_outputs("one", [{"name": "y"}])
    assert again.get("one").outputs == ({"name": "y"},)
    again.close()


def test_finished_job_is_not_changed_any_more(store: JobStore) -> None:
    store.create(new_job("one"))
    store.start("one")
    store.succeed("one", {"outcome": "improved"}, "engine.onnx", {"engine.onnx": StoredFile("b" * 64, 3)})
    done = store.get("one")
    assert (done.state, done.progress, done.artifacts["engine.onnx"].size_bytes) == (JobState.SUCCEEDED, 1.0, 3)
    assert store.cancel("one") is JobState.SUCCEEDED
    store.advance("one", "search", 1.0)
    store.record_trials("one", [{"index": 0}], best=0)
    with pytest.raises(IllegalMoveError):
        store.fail("one", {"title": "x"}, {})
    assert store.get("one") == done


def test_second_cancel_changes_nothing(store: JobStore) -> None:
    store.create(new_job("one"))
    store.start("one")
    assert store.cancel("one") is JobState.RUNNING
    cancelled = store.get("one")
    assert store.cancel("one") is JobState.CANCELLED
    assert store.get("one") == cancelled
