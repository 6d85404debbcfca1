from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from service.access.caller import Caller, Role
from service.access.key_text import KeyText, key_from_text
from service.access.keys import Keys
from service.database.engine import open_engine
from service.errors import NotFoundError
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(tmp_path: Path, clock: FakeClock) -> Iterator[Keys]:
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    yield Keys(engine, clock)
    engine.dispose()


def test_a_key_is_found_by_its_text_and_says_who_asks(keys: Keys) -> None:
    text, made = keys.create(Role.SUBMIT, "vision", name="nightly")
    assert keys.find(text) == made
    assert made.caller == Caller(text.id, "vision", Role.SUBMIT, "nightly")
    assert key_from_text(str(text)) == text


def test_only_a_digest_of_the_secret_is_kept(keys: Keys, tmp_path: Path) -> None:
    text, made = keys.create(Role.READ, "vision")
    with sqlite3.connect(tmp_path / "keys.sqlite") as connection:
        dump = "\n".join(connection.iterdump())
    assert text.secret not in dump
    assert text.id in dump
    assert text.secret not in f"{made!r} {text!r}"


def test_another_secret_or_id_finds_nothing(keys: Keys) -> None:
    text, _ = keys.create(Role.READ, "vision")
    other, _ = keys.create(Role.ADMIN, "vision")
    assert keys.find(KeyText(text.id, other.secret)) is None
    assert keys.find(KeyText("0" * 12, text.secret)) is None
    assert keys.find(KeyText(text.id, "0" * 64)) is None


def test_keys_are_random(keys: Keys) -> None:
    made = [keys.create(Role.READ, "vision")[0] for _ in range(20)]
    assert len({key.id for key in made}) == len({key.secret for key in made}) == 20
    assert {len(key.secret) for key in made} == {64}  # 256 bits


def test_a_key_expires(keys: Keys, clock: FakeClock) -> None:
    text, made = keys.create(Role.READ, "vision", lifetime=timedelta(days=90))
    assert made.expires_at == clock() + timedelta(days=90)
    assert made.state(clock()) == "active"
    clock.advance(90 * 24 * 3600)
    found = keys.find(text)
    assert found is not None
    assert found.state(clock()) == "expired"


def test_a_revoked_key_stays_so(keys: Keys, clock: FakeClock) -> None:
    text, _ = keys.create(Role.READ, "vision")
    first = keys.revoke(text.id)
    clock.advance(60)
    assert keys.revoke(text.id) == first
    assert first.state(clock()) == "revoked"
    with pytest.raises(InvalidConfigError, match="it is revoked"):
        keys.rotate(text.id)


def test_a_rotated_key_keeps_its_id_and_loses_its_secret(keys: Keys) -> None:
    old, made = keys.create(Role.SUBMIT, "vision", name="nightly")
    new, again = keys.rotate(old.id)
    assert (new.id, again) == (old.id, made)
    assert keys.find(old) is None
    assert keys.find(new) == made


def test_use_is_noted(keys: Keys, clock: FakeClock) -> None:
    text, made = keys.create(Role.READ, "vision")
    assert made.used_at is None
    keys.note_use(text.id)
    assert keys.get(text.id).used_at == clock()


def test_a_server_knows_whether_there_was_ever_a_key(keys: Keys) -> None:
    assert not keys.has_any()
    text, _ = keys.create(Role.READ, "vision")
    keys.revoke(text.id)
    assert keys.has_any()
    assert [key.id for key in keys.list()] == [text.id]


def test_who_made_or_saw_a_key_knows_of_it_without_a_look_at_the_database(keys: Keys, clock: FakeClock, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    elsewhere = Keys(engine, clock)
    assert (keys.has_any(), keys.is_any_known, elsewhere.is_any_known) == (False, False, False)
    keys.create(Role.READ, "vision")
    assert (keys.is_any_known, elsewhere.is_any_known) == (True, False)
    assert elsewhere.has_any()
    assert elsewhere.is_any_known
    engine.dispose()


def test_unknown_key_is_not_found(keys: Keys) -> None:
    for ask in (keys.get, keys.revoke, keys.rotate):
        with pytest.raises(NotFoundError, match="there is no such key"):
            ask("none")


@pytest.mark.parametrize("tenant", ["", "%", "a b", "_a", "-", "a" * 64, "a\n", "a'; DROP TABLE jobs;--", "\u0430", "../x", "a" * 10**6])
def test_a_tenants_name_is_a_plain_word(keys: Keys, tenant: str) -> None:
    with pytest.raises(InvalidConfigError, match="tenant"):
        keys.create(Role.READ, tenant)


@pytest.mark.parametrize("name", ["a" * 101, "a\nb", "\x1b[31m"])
def test_a_label_is_short_and_can_be_seen(keys: Keys, name: str) -> None:
    with pytest.raises(InvalidConfigError, match="name"):
        keys.create(Role.READ, "vision", name=name)


@pytest.mark.parametrize("days", [0, -1, 36501, 999999999])
def test_a_lifetime_is_positive_and_ends(keys: Keys, days: int) -> None:
    with pytest.raises(InvalidConfigError, match="lifetime"):
        keys.create(Role.READ, "vision", lifetime=timedelta(days=days))
