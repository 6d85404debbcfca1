"""The operator's commands, on a folder with and without a running server."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.__main__ import main
from service.access.key_places import KEY_NAME
from service.access.key_text import key_from_text
from service.jobs.records import Webhook
from tests.service.conftest import Server, running_server
from tests.service.jobs.test_store import new_job


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


class Operator:
    """Runs commands on a data folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def run(self, *words: str, status: int = 0) -> str:
        """Return what a command printed: to stdout, or where it fails to stderr."""
        assert main([*words, "--data-dir", str(self.folder)]) == status
        out, err = self._capsys.readouterr()
        return out if status == 0 else err

    def create(self, *words: str) -> str:
        return self.run("keys", "create", *words).strip()


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path / "data", capsys)


def test_a_key_is_the_only_thing_printed_and_kept_nowhere(operator: Operator) -> None:
    text = key_from_text(operator.create("--role", "submit", "--tenant", "vision", "--name", "nightly", "--expires", "90d"))
    assert text is not None
    listed = operator.run("keys", "list")
    assert [text.id, "submit", "vision", "active"] == listed.splitlines()[1].split()[:4]
    assert listed.splitlines()[1].endswith("nightly")
    for path in operator.folder.rglob("*"):
        assert not path.is_file() or text.secret.encode() not in path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_root_makes_no_files_in_the_folder_of_another_user(operator: Operator) -> None:
    operator.folder.mkdir()
    os.chown(operator.folder, 10001, 10001)
    told = operator.run("keys", "create", "--role", "admin", status=2)
    assert "that of user 10001" in told
    assert "--user '#10001'" in told
    assert not list(operator.folder.iterdir())


def test_the_first_key_makes_the_folder_and_others_need_one(operator: Operator) -> None:
    assert "there is none" in operator.run("keys", "list", status=2)
    operator.folder.mkdir()
    assert "no server or first key was ever there" in operator.run("keys", "list", status=2)
    assert not list(operator.folder.iterdir())
    operator.create("--role", "admin")
    assert "tenant" not in operator.run("keys", "list").splitlines()[1]


def test_limits_are_set_with_a_key_and_changed_later(operator: Operator) -> None:
    operator.create("--role", "submit", "--tenant", "vision", "--max-jobs", "2", "--max-gpu-minutes-per-day", "1.5", "--own-measurements")
    assert "vision: jobs at once 2, gpu minutes per day 1.5, own measurements" in operator.run("tenants", "list")
    changed = operator.run("tenants", "limit", "vision", "--max-jobs", "none", "--max-bytes", "1000000", "--shared-measurements")
    assert changed == "vision: stored bytes 1,000,000, gpu minutes per day 1.5\n"
    assert "default: no limits" in operator.run("tenants", "list")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("keys", "create", "--role", "submit", "--tenant", "%"), "tenant '%'"),
        (("keys", "create", "--role", "submit", "--tenant", "a" * 64), "tenant"),
        (("keys", "create", "--role", "submit", "--expires", "soon"), "expected days or hours"),
        (("keys", "create", "--role", "submit", "--max-jobs", "1.5"), "expected a whole number"),
        (("keys", "create", "--role", "submit", "--max-jobs", "-1"), "expected 0 to"),
        (("keys", "create", "--role", "submit", "--max-cpu-minutes-per-day", "nan"), "expected 0 to"),
        (("keys", "revoke", "none"), "there is no such key"),
        (("keys", "rotate", "none"), "there is no such key"),
        (("tenants", "limit", "nobody", "--max-jobs", "1"), "there is no such tenant"),
        (("audit", "--since", "yesterday"), "expected a time"),
        (("audit", "--limit", "-1"), "expected 0 or more"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(operator: Operator, words: tuple[str, ...], message: str) -> None:
    operator.create("--role", "admin")
    said = operator.run(*words, status=2)
    assert message in said
    assert len(said.splitlines()) == 2


def test_a_wrong_limit_makes_no_key(operator: Operator) -> None:
    operator.create("--role", "admin")
    operator.run("keys", "create", "--role", "submit", "--max-jobs", "-1", status=2)
    assert len(operator.run("keys", "list").splitlines()) == 2


def test_a_running_server_follows_at_once(server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator(server.deps.settings.data_dir, capsys)

    def status(key: str | None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{server.client.base_url}/v1/jobs", headers=headers, trust_env=False).status_code

    assert status(None) == 200  # no key was ever made
    key = operator.create("--role", "submit", "--tenant", "vision", "--max-jobs", "3")
    deadline = time.monotonic() + 5  # it takes a second at most
    while status(None) == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (status(None), status(key)) == (401, 200)
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_API_KEY", key)
    assert main(["usage", "--server", str(server.client.base_url)]) == 0
    shown = capsys.readouterr().out
    assert f"key {key.split('_')[1]}, role submit, tenant vision" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("jobs at once")] == [["jobs", "at", "once", "0", "3"]]
    again = operator.run("keys", "rotate", key).strip()  # of the whole key its id is taken
    assert (status(key), status(again)) == (401, 200)
    assert operator.run("keys", "revoke", key.split("_")[1]) == f"revoked {key.split('_')[1]}\n"
    assert (status(again), status(None)) == (401, 401)
    with sqlite3.connect(operator.folder / "service.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM access_keys WHERE used_at IS NOT NULL").fetchone() == (1,)


def test_changes_of_keys_are_in_the_audit_log_without_secrets(operator: Operator) -> None:
    key = operator.create("--role", "submit", "--tenant", "vision", "--max-jobs", "3")
    key_id = key.split("_")[1]
    rotated = operator.run("keys", "rotate", key_id).strip()
    operator.run("tenants", "limit", "vision", "--max-jobs", "1")
    operator.run("keys", "revoke", key_id)
    found = [json.loads(line) for line in operator.run("audit", "--tenant", "vision", "--json").splitlines()]
    assert [entry["action"] for entry in found] == ["limits changed", "key created", "key rotated", "limits changed", "key revoked"]
    assert {entry["key"] for entry in found} == {"command-line"}
    assert found[0]["about"] == "vision: jobs at once 3"
    assert found[1]["about"] == f"key {key_id}, role submit"
    table = operator.run("audit", "--since", "1d", "--limit", "2")
    assert [line.split("  ")[1] for line in table.splitlines()[1:]] == ["limits changed", "key revoked"]
    assert len(operator.run("audit", "--since", "999999d").splitlines()) == 6
    assert operator.run("audit", "--since", "2999-01-01") == "no entries\n"
    for text in (key, rotated):
        assert text.rpartition("_")[2] not in table + json.dumps(found)


@pytest.mark.parametrize("is_folder_there", [False, True])
def test_a_server_without_a_key_does_not_listen_to_other_machines(operator: Operator, is_folder_there: bool) -> None:
    if is_folder_there:
        operator.folder.mkdir()
    assert "without an API key" in operator.run("serve", "--host", "0.0.0.0", "--port", "0", status=2)
    assert operator.folder.is_dir() is is_folder_there


def test_encryption_key_is_replaced_beside_a_running_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    folder = server.deps.settings.data_dir
    told = Operator(folder, capsys)
    for job in ("one", "two"):
        server.deps.store.create(new_job(job), Webhook("https://example.org", job))
        server.deps.store.fail(job, {}, {})
        first = (folder / KEY_NAME).read_text().split()
        printed = told.run("rotate-encryption-key")
        assert first[0] not in printed
        assert (folder / KEY_NAME).read_text().split()[1:] == first[:1]
    webhooks = server.deps.store.webhooks
    assert webhooks.renew() == ()
    (entry, *_) = json.loads("[" + ",".join(told.run("audit", "--json").splitlines()[::-1]) + "]")
    assert (entry["action"], first[0] in json.dumps(entry)) == ("encryption key replaced", False)


def test_key_for_the_setting_is_printed_and_kept_nowhere(operator: Operator) -> None:
    assert len(operator.run("rotate-encryption-key", "--print").strip()) == 44
    assert not operator.folder.exists()
    operator.create("--role", "admin")
    operator.run("rotate-encryption-key")
    assert len((operator.folder / KEY_NAME).read_text().split()) == 1


def test_key_of_the_setting_is_the_operators_to_replace(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.create("--role", "admin")
    key = operator.run("rotate-encryption-key", "--print").strip()
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_ENCRYPTION_KEYS", key)
    told = operator.run("rotate-encryption-key", status=2)
    assert "which this program does not write" in told
    assert key not in told
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_ENCRYPTION_KEYS", f"{key}, {key[:-3]}")
    told = operator.run("keys", "list", status=2)
    assert "number 2 is no key" in told
    assert key[:-3] not in told
