from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.auth import authorize
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings


def request(
    *hosts: str, host: str = "127.0.0.1:8000", caller: str = "127.0.0.1", authorization: str | None = None, origin: str | None = None
) -> Request:
    headers = [(b"host", one.encode()) for one in hosts or (host,)]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers, "client": (caller, 5000)}
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
