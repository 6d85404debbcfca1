from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.access.encryption import Encryption
from service.access.key_places import KEY_NAME, KeyFile
from service.errors import EncryptionKeyError
from service.jobs.live.webhooks import PLAIN_WEBHOOKS
from service.jobs.records import Webhook
from service.jobs.store import JobStore
from service.settings import Settings
from tests.fakes import FakeClock
from tests.service.conftest import running_server
from tests.service.jobs.test_store import new_job
from tests.service.launch_server import fake_deps

HOOK = Webhook("https://hooks.example.org/T0/B0/token-in-the-path", "a secret of the user")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / KEY_NAME


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    return str(request.getfixturevalue("postgres").create_database())


@pytest.fixture
def store(url: str, key: Path) -> Iterator[JobStore]:
    store = JobStore(url, FakeClock(), Encryption(KeyFile(key)))
    yield store
    store.close()


def read(store: JobStore) -> dict[str, Webhook]:
    return {due.job_id: store.webhooks.read(due) for due in store.webhooks.due(0.0)}


def write_plain(store: JobStore, *jobs: str) -> None:
    """Write what an earlier version, or a process of it, does."""
    PLAIN_WEBHOOKS.create(store.engine, checkfirst=True)
    for job in jobs:
        store.create(new_job(job))
        store.cancel(job)
        with store.engine.begin() as connection:
            values = {"job_id": job, "url": HOOK.url, "secret": HOOK.secret, "attempts": 3, "next_at": 0.0}
            connection.execute(sa.insert(PLAIN_WEBHOOKS).values(values))


def everything(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        tables = sa.inspect(engine).get_table_names()
        return repr([tuple(row) for table in tables for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"')])


def test_database_holds_neither_address_nor_secret(store: JobStore) -> None:
    store.create(new_job("one"), HOOK)
    store.cancel("one")
    assert "one" in everything(store.engine)
    assert "example.org" not in everything(store.engine)
    assert "secret of the user" not in everything(store.engine)
    assert read(store) == {"one": HOOK}


def test_webhook_without_a_secret_comes_back_so(store: JobStore) -> None:
    store.create(new_job("one"), Webhook("https://example.org"))
    store.cancel("one")
    assert read(store) == {"one": Webhook("https://example.org")}


def test_token_of_another_job_is_refused(store: JobStore) -> None:
    for job in ("one", "two"):
        store.create(new_job(job), HOOK)
        store.cancel(job)
    with store.engine.begin() as connection:  # who can write to the database alone sends no signed message elsewhere
        token = connection.exec_driver_sql("SELECT token FROM encrypted_webhooks WHERE job_id = 'one'").scalar_one()
        connection.execute(sa.text("UPDATE encrypted_webhooks SET token = :token WHERE job_id = 'two'"), {"token": token})
    with pytest.raises(EncryptionKeyError, match="of something else"):
        read(store)


def test_job_whose_webhook_cannot_be_encrypted_is_none(store: JobStore, key: Path) -> None:
    key.write_text("no key")
    with pytest.raises(EncryptionKeyError):
        store.create(new_job("one"), HOOK)
    store.create(new_job("two"))
    assert [job.id for job in store.list()] == ["two"]


def test_what_an_earlier_version_left_plain_is_encrypted(store: JobStore, url: str, key: Path) -> None:
    write_plain(store, "one", "two")
    again = JobStore(url, FakeClock(), Encryption(KeyFile(key)))
    assert again.webhooks.encrypt_plain() == 2
    assert "example.org" not in everything(again.engine)
    assert read(again) == {"one": HOOK, "two": HOOK}
    assert {due.attempts for due in again.webhooks.due(0.0)} == {3}
    write_plain(again, "three")  # by a process of the earlier version that still lives
    assert again.webhooks.encrypt_plain() == 1
    assert again.webhooks.encrypt_plain() == 0
    assert set(read(again)) == {"one", "two", "three"}
    again.close()


def test_plain_rows_stay_where_there_is_no_key_to_encrypt_them(store: JobStore, url: str, key: Path) -> None:
    write_plain(store, "one")
    key.write_text("no key")
    again = JobStore(url, FakeClock(), Encryption(KeyFile(key)))
    with pytest.raises(EncryptionKeyError):
        again.webhooks.encrypt_plain()
    key.unlink()
    assert again.webhooks.encrypt_plain() == 1
    again.close()


def test_job_that_is_removed_takes_its_plain_row_along(store: JobStore, url: str, key: Path) -> None:
    write_plain(store, "one")
    again = JobStore(url, FakeClock(), Encryption(KeyFile(key)))
    again.remove("one", "it was deleted")
    assert "example.org" not in everything(again.engine)
    again.close()


def test_no_file_holds_what_was_plain(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(f"sqlite:///{path}", FakeClock(), Encryption(KeyFile(key)))
    write_plain(store, *(f"job-{number}" for number in range(100)))
    store.close()
    assert b"secret of the user" in b"".join(file.read_bytes() for file in tmp_path.glob("jobs.sqlite*"))
    again = JobStore(f"sqlite:///{path}", FakeClock(), Encryption(KeyFile(key)))
    assert again.webhooks.encrypt_plain() == 100
    assert b"secret of the user" not in b"".join(file.read_bytes() for file in tmp_path.glob("jobs.sqlite*"))
    again.close()
    assert b"secret of the user" not in b"".join(file.read_bytes() for file in tmp_path.glob("jobs.sqlite*"))


def test_what_an_earlier_key_encrypted_is_encrypted_anew(store: JobStore, key: Path) -> None:
    store.create(new_job("one"), HOOK)
    store.cancel("one")
    before = everything(store.engine)
    assert store.webhooks.renew() == ()
    assert everything(store.engine) == before
    Encryption(KeyFile(key)).replace_key(store.webhooks.renew)
    assert everything(store.engine) != before
    key.write_text(key.read_text().split()[0])  # without the earlier one
    assert read(store) == {"one": HOOK}


def test_jobs_whose_key_is_lost_are_named_and_others_go_on(store: JobStore, key: Path) -> None:
    store.create(new_job("one"), HOOK)
    lost = key.read_text()
    key.unlink()
    store.create(new_job("two"), HOOK)
    assert store.webhooks.renew() == ("one",)
    key.write_text(key.read_text() + lost)  # put back as a further line
    assert store.webhooks.renew() == ()
    for job in ("one", "two"):
        store.cancel(job)
    assert read(store) == {"one": HOOK, "two": HOOK}


def test_server_encrypts_what_it_finds_at_its_start(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    deps = fake_deps(settings, tmp_path / "record")
    deps.store.create(new_job("one"))
    write_plain(deps.store)
    with deps.store.engine.begin() as connection:
        connection.execute(
            sa.insert(PLAIN_WEBHOOKS).values(job_id="one", url="http://127.0.0.1:9/", secret="hush", attempts=0, next_at=1e12)
        )
    deps.close()
    with running_server(tmp_path) as server:
        for _ in range(200):
            with closing(sqlite3.connect(tmp_path / "data" / "service.sqlite", timeout=9)) as connection:
                if connection.execute("SELECT count(*) FROM encrypted_webhooks").fetchone() == (1,):
                    break
            server.client.get("/healthz")
        assert "hush" not in everything(server.deps.store.engine)
        assert server.deps.store.webhooks.renew() == ()
    assert (tmp_path / "data" / KEY_NAME).stat().st_mode & 0o777 == 0o600


def test_rebuilt_database_takes_over_what_an_earlier_version_left_plain(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    deps = fake_deps(settings, tmp_path / "record")
    write_plain(deps.store, "one")
    deps.close()
    rebuilt = fake_deps(settings, tmp_path / "record", rebuild=True)
    assert rebuilt.store.webhooks.encrypt_plain() == 1
    assert read(rebuilt.store) == {"one": HOOK}
    rebuilt.close()
