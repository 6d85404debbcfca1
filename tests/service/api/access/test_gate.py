from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from service.access.caller import ENVIRONMENT, THIS_MACHINE, Caller, Role
from service.access.key_text import KeyText, new_key
from service.access.keys import Keys
from service.api.access.gate import Admitted, Gate, check_role
from service.database.engine import open_engine
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings
from tests.fakes import FakeClock


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    yield Keys(engine, FakeClock())
    engine.dispose()


class NoKeys(Keys):
    """Of a server whose database has none: needs no database."""

    def __init__(self) -> None:
        pass

    def has_any(self) -> bool:
        return False

    @property
    def is_any_known(self) -> bool:
        return False

    def find(self, text: KeyText) -> None:
        return None


def authorize(asked: Request, settings: Settings) -> Admitted:
    return Gate(settings, NoKeys()).admit(asked)


def request(
    *hosts: str,
    host: str = "127.0.0.1:8000",
    caller: str = "127.0.0.1",
    authorization: str | None = None,
    origin: str | None = None,
    query: str = "",
) -> Request:
    headers = [(b"host", one.encode()) for one in hosts or (host,)]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": headers, "client": (caller, 5000)}
    return Request({**scope, "scheme": "http", "server": ("127.0.0.1", 8000)})


def is_accepted(asked: Request, settings: Settings) -> bool:
    try:
        authorize(asked, settings)
    except (ForbiddenError, UnauthorizedError):
        return False
    return True


@pytest.mark.parametrize("authorization", ["Bearer secret", "bearer secret"])
@pytest.mark.parametrize(("host", "caller"), [("example.org", "10.0.0.1"), ("127.0.0.1:8000", "127.0.0.1")])
def test_key_is_accepted_from_anywhere(host: str, caller: str, authorization: str) -> None:
    assert is_accepted(request(host=host, caller=caller, authorization=authorization), Settings(api_key="secret"))


@pytest.mark.parametrize("authorization", [None, "", "secret", "Bearer", "Bearer other", "Basic secret", "Bearer secret2", "Bearer \xff"])
def test_without_the_key_nobody_is_accepted(authorization: str | None) -> None:
    with pytest.raises(UnauthorizedError):
        authorize(request(authorization=authorization), Settings(api_key="secret"))


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, True),
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.1:9000", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_server_without_a_key_refuses_pages_of_other_sites(origin: str | None, expected: bool) -> None:
    assert is_accepted(request(origin=origin), Settings()) is expected
    assert is_accepted(request(origin=origin, authorization="Bearer secret"), Settings(api_key="secret"))


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LocalHost", "127.8.9.10", "[::ffff:127.0.0.1]:1"])
def test_server_without_a_key_answers_its_own_machine(host: str) -> None:
    assert is_accepted(request(host=host), Settings())


@pytest.mark.parametrize(
    ("host", "caller"), [("127.0.0.1", "10.0.0.1"), ("example.org", "127.0.0.1"), ("", "127.0.0.1"), ("[", "127.0.0.1")]
)
def test_server_without_a_key_refuses_other_machines_and_foreign_names(host: str, caller: str) -> None:
    with pytest.raises(ForbiddenError):
        authorize(request(host=host, caller=caller), Settings())


@pytest.mark.parametrize(
    "host",
    [
        "[::1].evil.example",
        "[::1]evil.example:8000",
        "[::1]]",
        "[[::1]]",
        "::1",
        "127.0.0.1%evil.example",
        "[::1%evil.example]",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "localhost.",
        "evil.localhost",
        "localhost@evil.example",
        "evil.example@localhost",
        "user:word@127.0.0.1:8000",
        "localhost:8000:80",
        "localhost:",
        "localhost:80a",
        "localhost:-1",
        "localhost:999999",
        "localhost/evil.example",
        "localhost#evil.example",
        "localhost evil.example",
        "localhost,evil.example",
        " localhost",
        "localhost\n",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",
        "\uff11\uff12\uff17.0.0.1",
        "loc\u0430lhost",
    ],
)
def test_host_is_compared_whole(host: str) -> None:
    assert not is_accepted(request(host=host), Settings())


def test_no_host_or_two_are_refused() -> None:
    assert not is_accepted(request("localhost", "localhost"), Settings())
    assert not is_accepted(request("localhost", "evil.example"), Settings())
    missing = request()
    missing.scope["headers"] = []
    assert not is_accepted(missing, Settings())


@given(st.text(alphabet="[]:.%@/ \\0123456789abcdefghlostx-\t", max_size=30))
@example("[::1]")
def test_what_is_accepted_is_a_host_of_this_machine_and_a_port(host: str) -> None:
    name, _, port = host.rpartition(":") if host[-1:].isdigit() and ":" in host.rpartition("]")[2] else (host, "", "")
    if is_accepted(request(host=host), Settings()):
        assert name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
        assert not port or port.isdigit()


@pytest.mark.parametrize("role", list(Role))
def test_a_key_of_the_database_says_who_asks(keys: Keys, role: Role) -> None:
    text, _ = keys.create(role, "vision", name="nightly")
    for settings in (Settings(), Settings(api_key="secret")):
        admitted = Gate(settings, keys).admit(request(host="example.org", caller="10.0.0.1", authorization=f"Bearer {text}"))
        assert admitted.caller == Caller(text.id, "vision", role, "nightly")
    assert keys.get(text.id).used_at is not None


def test_the_key_of_the_settings_is_an_admins_of_the_first_tenant(keys: Keys) -> None:
    keys.create(Role.READ, "vision")
    assert Gate(Settings(api_key="secret"), keys).admit(request(authorization="Bearer secret")).caller == ENVIRONMENT


def test_with_the_first_key_this_machine_needs_one_too_for_good(keys: Keys) -> None:
    gate = Gate(Settings(), keys)
    before = gate.admit(request())
    assert (before.caller, gate.is_still_good(before)) == (THIS_MACHINE, True)
    text, _ = keys.create(Role.READ, "vision")
    keys.revoke(text.id)
    with pytest.raises(UnauthorizedError):
        gate.admit(request())
    assert not gate.is_still_good(before)


def test_a_first_key_of_another_process_is_good_at_once(keys: Keys, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    gates = [Gate(Settings(), Keys(engine, FakeClock()), lambda: 0.0) for _ in range(2)]
    before = [gate.admit(request()) for gate in gates]
    text, _ = keys.create(Role.READ, "vision")
    assert [gate.admit(request()).caller for gate in gates] == [THIS_MACHINE] * 2  # within the second
    asked = request(host="example.org", caller="10.0.0.1", authorization=f"Bearer {text}")
    assert gates[0].admit(asked).caller.key_id == text.id
    assert not gates[1].is_still_good(before[1])  # which is asked by what goes on for long
    for gate in gates:  # each knows now
        with pytest.raises(UnauthorizedError):
            gate.admit(request())
    engine.dispose()


def test_that_there_is_no_key_is_taken_for_granted_for_a_second_at_most(tmp_path: Path) -> None:
    engine, looks, seconds = open_engine(f"sqlite:///{tmp_path / 'keys.sqlite'}"), list[str](), 0.0
    gate = Gate(Settings(), Keys(engine, FakeClock()), lambda: seconds)
    sa.event.listen(engine, "before_cursor_execute", lambda *given: looks.append(given[2]))
    for seconds, expected in ((0.0, 1), (0.5, 1), (0.999, 1), (1.0, 2), (1.5, 2), (2.5, 3)):  # noqa: B007  # the clock reads it
        assert gate.admit(request()).caller == THIS_MACHINE
        assert len(looks) == expected
    Keys(engine, FakeClock()).create(Role.READ, "vision")
    seconds = 3.499
    assert gate.admit(request()).caller == THIS_MACHINE
    seconds = 3.5
    with pytest.raises(UnauthorizedError):
        gate.admit(request())
    engine.dispose()


def test_revoked_expired_and_rotated_keys_are_refused_at_once(keys: Keys, tmp_path: Path) -> None:
    gate, clock = Gate(Settings(), keys), FakeClock()
    texts = {name: keys.create(Role.READ, "vision", lifetime=timedelta(days=1))[0] for name in ("revoked", "expired", "rotated")}
    admitted = {name: gate.admit(request(authorization=f"Bearer {text}")) for name, text in texts.items()}
    assert all(gate.is_still_good(one) for one in admitted.values())
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.sqlite'}")  # as another process has it
    elsewhere = Keys(engine, clock)
    elsewhere.revoke(texts["revoked"].id)
    elsewhere.rotate(texts["rotated"].id)
    for name, words in (("revoked", "is revoked"), ("rotated", "expected a key")):
        with pytest.raises(UnauthorizedError, match=words):
            gate.admit(request(authorization=f"Bearer {texts[name]}"))
        assert not gate.is_still_good(admitted[name])
    later = Keys(engine, clock)
    clock.advance(24 * 3600)
    with pytest.raises(UnauthorizedError, match="is expired"):
        Gate(Settings(), later).admit(request(authorization=f"Bearer {texts['expired']}"))
    assert not Gate(Settings(), later).is_still_good(admitted["expired"])
    engine.dispose()


def test_other_secrets_ids_and_forms_are_refused_with_the_same_words(keys: Keys) -> None:
    text, _ = keys.create(Role.ADMIN, "vision")
    gate, said = Gate(Settings(), keys), set()
    wrong = [new_key(), new_key(text.id), text.secret, text.id, "", "%", "*"]
    wrong += [f"{text} {text}", f"{text},{text}", str(text)[:-1], f"{text}\x00"]
    for key in wrong:
        for authorization in (f"Bearer {key}", f"Basic {key}", str(key)):
            with pytest.raises(UnauthorizedError) as caught:
                gate.admit(request(authorization=authorization))
            said.add((caught.value.detail, caught.value.fix))
    assert len(said) == 1


def test_two_keys_in_the_headers_are_refused(keys: Keys) -> None:
    text, _ = keys.create(Role.ADMIN, "vision")
    for second in (str(text), "secret", str(new_key())):
        asked = request(authorization=f"Bearer {text}")
        asked.scope["headers"].append((b"authorization", f"Bearer {second}".encode()))
        for settings in (Settings(), Settings(api_key="secret")):
            with pytest.raises(UnauthorizedError, match="found 2"):
                Gate(settings, keys).admit(asked)


@pytest.mark.parametrize(
    "query",
    ["key=KEY", "api_key=secret", "Access_Token=secret", "state=KEY", "token", "x=1&KEY", "state=%6fKEY", "authorization=Bearer+KEY"],
)
def test_a_key_in_the_address_is_refused_also_beside_a_good_one(keys: Keys, query: str) -> None:
    text, _ = keys.create(Role.ADMIN, "vision")
    for authorization in (None, f"Bearer {text}", "Bearer secret"):
        with pytest.raises(UnauthorizedError, match="query: it holds a key") as caught:
            Gate(Settings(api_key="secret"), keys).admit(
                request(authorization=authorization, query=query.replace("%6fKEY", f"%6f{str(text)[1:]}").replace("KEY", str(text)))
            )
        assert text.secret not in f"{caught.value.detail} {caught.value.fix}"
    asked = request(authorization=f"Bearer {text}", query="state=running&limit=5")
    assert Gate(Settings(), keys).admit(asked).caller.key_id == text.id


def test_a_lesser_role_is_told_which_one_is_needed() -> None:
    check_role(Caller("k", "vision", Role.ADMIN), Role.SUBMIT)
    with pytest.raises(ForbiddenError, match="its role is read, and this needs submit"):
        check_role(Caller("k", "vision", Role.READ), Role.SUBMIT)
