"""Jobs of several tenants in one table, and a table from before there were any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.access.audit import AuditEntry
from service.access.caller import THIS_MACHINE, Role
from service.errors import NotFoundError, RemovedError
from service.jobs.faults.job_note import NOTE_NAME, find_note, write_note
from service.jobs.records import JobState, StoredFile, Webhook
from service.jobs.store import JobStore
from service.settings import Settings
from tests.fakes import FakeClock
from tests.service.jobs.earlier_database import SHA256, write_earlier_database
from tests.service.jobs.test_store import new_job
from tests.service.launch_server import fake_deps


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    for tenant in ("a_c", "abc"):
        store.create(new_job(f"of {tenant}", key="k", tenant=tenant))
    yield store
    store.close()


def test_another_tenants_job_is_told_apart_from_none_by_nothing(store: JobStore) -> None:
    assert store.get("of abc", "abc").new.tenant == "abc"
    for ask in (store.get, store.state):
        said = set()
        for job_id in ("of abc", "of nobody"):
            with pytest.raises(NotFoundError) as caught:
                ask(job_id, "a_c")
            said.add((caught.value.detail.replace(job_id, "JOB"), caught.value.fix))
        assert len(said) == 1


def test_a_removed_job_is_told_of_to_its_own_tenant_alone(store: JobStore) -> None:
    store.cancel("of abc")
    store.remove("of abc", "it was deleted")
    with pytest.raises(RemovedError):
        store.get("of abc", "abc")
    with pytest.raises(NotFoundError):
        store.get("of abc", "a_c")


def test_lists_hold_the_jobs_of_the_tenant_whatever_characters_its_name_has(store: JobStore) -> None:
    assert [row.id for row in store.rows(limit=9, tenant="a_c")] == ["of a_c"]
    assert [row.id for row in store.rows(limit=9, tenant="a%")] == []
    assert [row.id for row in store.rows(limit=9, tenant="abc", states=(JobState.QUEUED,))] == ["of abc"]
    assert [(row.id, row.tenant) for row in store.rows(limit=9)] == [("of abc", "abc"), ("of a_c", "a_c")]


def test_two_tenants_may_use_the_same_idempotency_key(store: JobStore) -> None:
    again, is_new = store.create(new_job("another", key="k", tenant="abc"))
    assert (again.id, is_new) == ("of abc", False)
    assert store.knows_key("abc", "k")
    assert not store.knows_key("default", "k")
    assert store.create(new_job("third", key="k", request="other"))[1]


def test_jobs_of_an_earlier_database_belong_to_the_first_tenant(tmp_path: Path) -> None:
    write_earlier_database(tmp_path / "jobs.sqlite")
    for _ in range(2):  # the second time there is nothing left to do
        store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
        job = store.get("old", "default")
        assert (job.new.tenant, job.new.idempotency_key) == ("default", "k")
        assert store.find_by_key("default", "k", "r") == job
        with pytest.raises(RemovedError):
            store.get("gone", "default")
        assert [row.id for row in store.rows(limit=9, tenant="default")] == ["old"]
        assert store.file_uses.all() == {SHA256}
        assert store.owners.has("default", SHA256)
        assert not store.owners.has("other", SHA256)
        store.close()


def test_after_an_earlier_database_tenants_may_use_the_key_of_an_old_job(tmp_path: Path) -> None:
    write_earlier_database(tmp_path / "jobs.sqlite")
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    assert store.create(new_job("new", key="k", tenant="other"))[1]
    assert not store.create(new_job("again", key="k"))[1]
    assert store.remove("old", "it was deleted") == frozenset({SHA256})
    store.close()


def test_uploads_from_before_there_were_tenants_are_the_first_ones(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    deps = fake_deps(settings, tmp_path / "record")
    with deps.artifacts.writer(0) as writer:
        writer.write(b"upload")
        sha256 = writer.commit().sha256
    deps.close()
    for path in (tmp_path / "data").glob("service.sqlite*"):
        path.unlink()
    lost = fake_deps(settings, tmp_path / "record")
    assert not lost.store.owners.has("default", sha256)  # a lost database knows of no owner: another tenant's may be among them
    lost.close()
    for path in (tmp_path / "data").glob("service.sqlite*"):
        path.unlink()
    write_earlier_database(tmp_path / "data" / "service.sqlite")
    earlier = fake_deps(settings, tmp_path / "record")
    assert earlier.store.owners.has("default", sha256)
    earlier.close()


def test_the_note_of_a_job_names_its_tenant_and_one_of_an_earlier_version_none(tmp_path: Path, store: JobStore) -> None:
    folder = tmp_path / "of abc"
    folder.mkdir()
    write_note(folder, store.get("of abc"))
    note = find_note(folder)
    assert note is not None
    assert note.new.tenant == "abc"
    content = json.loads((folder / NOTE_NAME).read_text())
    del content["new"]["tenant"]
    (folder / NOTE_NAME).write_text(json.dumps(content))
    earlier = find_note(folder)
    assert earlier is not None
    assert earlier.new.tenant == "default"


def test_a_rebuilt_database_keeps_keys_tenants_and_owners(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    deps = fake_deps(settings, tmp_path / "record")
    deps.store.tenants.ensure("vision")
    deps.store.tenants.change("vision", {"jobs_at_once": 2})
    key, made = deps.store.keys.create(Role.SUBMIT, "vision")
    deps.store.owners.add("vision", StoredFile(SHA256, 7))
    deps.store.create(new_job("one", tenant="vision"))
    deps.store.cancel("one")
    deps.store.remove("one", "it was deleted")
    deps.store.create(new_job("two", tenant="vision"), Webhook("https://example.org/done", "secret"))
    deps.close()
    rebuilt = fake_deps(settings, tmp_path / "record", rebuild=True)
    assert rebuilt.store.keys.find(key) == made
    assert rebuilt.store.tenants.get("vision").limits.jobs_at_once == 2
    assert rebuilt.store.owners.has("vision", SHA256)
    with pytest.raises(RemovedError):
        rebuilt.store.get("one", "vision")
    rebuilt.store.cancel("two")
    (due,) = rebuilt.store.webhooks.due(0.0)
    assert (due.job_id, rebuilt.store.webhooks.read(due)) == ("two", Webhook("https://example.org/done", "secret"))
    rebuilt.close()


@pytest.mark.parametrize("had_keys", [False, True])
def test_a_server_whose_keys_are_lost_goes_on_wanting_them(tmp_path: Path, *, had_keys: bool) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    deps = fake_deps(settings, tmp_path / "record")
    key = deps.store.keys.create(Role.READ, "vision")[1].id if had_keys else THIS_MACHINE.key_id
    deps.audit.write(AuditEntry("2026-11-29T10:00:00.000Z", "download", key, "vision"))
    deps.close()
    (settings.data_dir / "service.sqlite").write_bytes(b"no database" * 1000)
    rebuilt = fake_deps(settings, tmp_path / "record", rebuild=True)
    assert rebuilt.store.keys.has_any() == had_keys
    assert all(one.revoked_at is not None for one in rebuilt.store.keys.list())
    rebuilt.close()


def test_a_rebuilt_earlier_database_gives_its_jobs_to_the_first_tenant(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    write_earlier_database(settings.data_dir / "service.sqlite")
    rebuilt = fake_deps(settings, tmp_path / "record", rebuild=True)
    assert rebuilt.store.find_by_key("default", "k", "r") == rebuilt.store.get("old", "default")
    with pytest.raises(RemovedError):
        rebuilt.store.get("gone", "default")
    rebuilt.close()


def test_a_job_that_is_recovered_after_its_database_was_lost_has_a_tenant(store: JobStore) -> None:
    store.create(new_job("recovered", tenant="forgotten"))
    assert store.tenants.get("forgotten").limits.given() == {}
    assert store.tenant_apart("recovered") is None
