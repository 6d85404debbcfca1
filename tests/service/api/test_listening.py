"""Addresses that a server cannot listen on are refused in words."""

from __future__ import annotations

import socket

import pytest

from calibration.errors import InvalidConfigError
from service.api.listening import check_address


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
