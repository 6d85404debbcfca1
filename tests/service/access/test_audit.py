from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.access.audit import AuditEntry, AuditLog, time_text
from service.access.key_text import new_key

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def entry(number: int, *, key: str | None = "k", tenant: str | None = "vision", about: str | None = None) -> AuditEntry:
    return AuditEntry(
        time_text(NOON.replace(microsecond=1000 * (number % 1000), second=number // 1000)), "submit", key, tenant, about=about
    )


def test_entries_are_read_newest_first_from_both_files(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", 2**20)
    written = [entry(number, key="k" if number % 2 else None) for number in range(10)]
    for one in written:
        log.write(one)
    assert list(log.entries()) == written[::-1]
    assert list(log.entries(since=NOON.replace(microsecond=7000))) == written[:6:-1]


def test_entries_are_those_of_the_tenant_that_is_asked_for(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", 2**20)
    for number, tenant in enumerate(("a_c", "abc", None)):
        log.write(entry(number, tenant=tenant))
    assert [one.tenant for one in log.entries(tenant="a_c")] == ["a_c"]
    assert list(log.entries(tenant="a%")) == []


def test_the_log_grows_to_its_size_and_keeps_the_newest(tmp_path: Path) -> None:
    folder, most = tmp_path / "audit", 40_000
    log = AuditLog(folder, most)
    for number in range(2000):
        log.write(entry(number))
        log.write(entry(number, key=None))
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most + 2 * 200  # a line more in each
    found = list(log.entries())
    assert found[0] == entry(1999)
    assert len(found) > 100


def test_strangers_push_out_nothing_of_those_with_keys(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", 20_000)
    log.write(entry(0))
    for number in range(1, 2000):
        log.write(entry(number, key=None))
    assert entry(0) in list(log.entries())


def test_an_entry_is_one_line_of_visible_characters_without_secrets(tmp_path: Path) -> None:
    key = new_key()
    log = AuditLog(tmp_path / "audit", 2**20)
    log.write(entry(0, about=f"{key}\n\x1b[31m\u202e" + "x" * 10**6))
    lines = (tmp_path / "audit" / "audit.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert len(lines[0]) < 1000
    assert key.id in lines[0]
    assert key.secret not in lines[0]


def test_others_may_not_read_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", 2**20)
    log.write(entry(0))
    assert (tmp_path / "audit").stat().st_mode & 0o77 == 0
    assert (tmp_path / "audit" / "audit.jsonl").stat().st_mode & 0o77 == 0


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", 2**20)
    log.write(entry(0))
    with (tmp_path / "audit" / "audit.jsonl").open("ab") as file:
        file.write(b'{"time": "2026\n[]\n\xff\n{"other": 1}\n')
    log.write(entry(1))
    assert list(log.entries()) == [entry(1), entry(0)]


def test_a_folder_that_takes_nothing_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit").write_text("a file")
    with caplog.at_level(logging.WARNING):
        AuditLog(tmp_path / "audit", 2**20).write(entry(0))
    assert "an entry was not written" in caplog.text


def test_another_process_may_append(tmp_path: Path) -> None:
    server, command = (AuditLog(tmp_path / "audit", 8_000) for _ in range(2))
    for number, log in zip(range(60), itertools.cycle((server, command))):  # the logs go round
        log.write(entry(number))
    assert next(server.entries()) == entry(59)
