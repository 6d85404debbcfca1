"""Addresses that a server cannot listen on are refused in words."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from service.access.caller import Role
from service.access.keys import Keys
from service.api.listening import check_address, check_guarded
from service.jobs.storage.database import open_database
from service.settings import Settings
from tests.fakes import FakeClock


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InvalidConfigError) as raised:
            check_address("127.0.0.1", port)
    assert raised.value.detail == f"port {port} of 127.0.0.1: another program listens there"
    assert "--port 0 takes any free one" in raised.value.fix
    check_address("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_any_free_port_can_be_listened_on(host: str) -> None:
    check_address(host, 0)


@pytest.mark.parametrize("host", ["no such host", "203.0.113.77"])
def test_an_address_that_this_machine_does_not_have_is_refused(host: str) -> None:
    with pytest.raises(InvalidConfigError, match="host '"):
        check_address(host, 0)


def test_without_a_key_a_server_listens_to_its_own_machine_alone(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    keys = Keys(engine, FakeClock())
    for host in ("0.0.0.0", "example.org", "::"):
        with pytest.raises(InvalidConfigError, match="without an API key"):
            check_guarded(Settings(host=host), keys)
        check_guarded(Settings(host=host, api_key="secret"), keys)
    check_guarded(Settings(), keys)
    keys.create(Role.READ, "vision")
    check_guarded(Settings(host="0.0.0.0"), keys)
    engine.dispose()
