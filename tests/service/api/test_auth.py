from __future__ import annotations

import pytest
from starlette.requests import Request

from service.api.auth import authorize
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings


def request(*, host: str = "127.0.0.1:8000", caller: str = "127.0.0.1", authorization: str | None = None) -> Request:
    headers = [(b"host", host.encode())]
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


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_server_without_a_key_answers_its_own_machine(host: str) -> None:
    assert is_accepted(request(host=host), Settings())


@pytest.mark.parametrize(
    ("host", "caller"), [("127.0.0.1", "10.0.0.1"), ("example.org", "127.0.0.1"), ("", "127.0.0.1"), ("[", "127.0.0.1")]
)
def test_server_without_a_key_refuses_other_machines_and_foreign_names(host: str, caller: str) -> None:
    with pytest.raises(ForbiddenError):
        authorize(request(host=host, caller=caller), Settings())
