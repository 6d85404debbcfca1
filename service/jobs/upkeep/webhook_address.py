"""Where a webhook may go: to no address that only this machine or its network can reach, unless the operator says otherwise.

Else whoever may submit a job could have the server ask what only the server can reach. A name is resolved once, every address is looked at,
and the connection is made to one of those: what the name means a moment later changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from service.errors import InvalidRequestError

MAX_URL_CHARACTERS = 2000
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str, *, any_address: bool) -> None:
    """Accept an address to which messages may be sent, as far as it says by itself where it leads.

    Args:
        url: The address.
        any_address: Whether it may lead to this machine or its network.

    Raises:
        InvalidRequestError: It is none, or leads where no message may go.
    """
    fix = "Give a URL such as https://example.org/hook."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise InvalidRequestError(f"webhook url {url!r}: {exc}", fix=fix) from exc
    if len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequestError(f"webhook url: expected at most {MAX_URL_CHARACTERS} printable characters of ASCII", fix=fix)
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise InvalidRequestError(f"webhook url {url!r}: expected http:// or https:// and a host", fix=fix)
    if parts.username is not None or parts.password is not None:
        raise InvalidRequestError("webhook url: found a user's name in it", fix="Give a secret instead: messages are signed with it.")
    if any_address:
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
            raise _not_public(host) from None
        return  # a name: looked at when the message is sent
    if not is_public(address):
        raise _not_public(host)


def resolved(host: str, port: int, *, any_address: bool) -> str:
    """Return an address of a host to which a message may be sent.

    Raises:
        InvalidRequestError: One of its addresses is reached only from this machine or its network.
        OSError: It has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not any_address and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise _not_public(host)
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, also where it carries another one inside."""
    if isinstance(address, ipaddress.IPv6Address):
        teredo = address.teredo
        inside = [address.ipv4_mapped, address.sixtofour, *(teredo or ())]
        if address in _NAT64:
            inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(found is not None and not is_public(found) for found in inside):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


def _not_public(host: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"webhook url: host {host!r} is on this machine or its own network",
        fix="Give a public address, or ask the operator to set ONNX_TRT_OPTIMIZER_WEBHOOK_ADDRESSES=any.",
    )


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
