from __future__ import annotations

import ipaddress
import socket

import pytest

from service.errors import InvalidRequestError
from service.jobs.upkeep.webhook_address import check_url, is_public, resolved

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_this_machine_and_its_network_are_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidRequestError, match="on this machine or its own network"):
        check_url(f"http://{host}:8080/hook", any_address=False)
    check_url(f"http://{host}:8080/hook", any_address=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_taken(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "x.localhost"])
def test_names_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises(InvalidRequestError, match="on this machine"):
        check_url(f"https://{host}/", any_address=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "http://",
        "http:///x",
        "https://user:word@example.org/",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://exa mple.org/",
        "https://example.org/\r\nX: y",
        "https://[::1",
        "https://example.org/" + "x" * 2000,
    ],
)
def test_what_is_no_address_of_http_is_refused(url: str) -> None:
    for any_address in (True, False):
        with pytest.raises(InvalidRequestError):
            check_url(url, any_address=any_address)


def test_a_name_is_refused_if_any_of_its_addresses_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["8.8.8.8", "10.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (address, 443)) for address in found])
    with pytest.raises(InvalidRequestError, match="own network"):
        resolved("rebound.example", 443, any_address=False)
    assert resolved("rebound.example", 443, any_address=True) == "8.8.8.8"
    del found[1]
    assert resolved("rebound.example", 443, any_address=False) == "8.8.8.8"
