"""Who may ask: the holder of the one key, or, on a server without a key, this machine only."""

from __future__ import annotations

import hashlib
import hmac
import re

from starlette.requests import Request

from service.errors import ForbiddenError, UnauthorizedError
from service.settings import PREFIX, Settings, is_loopback


def authorize(request: Request, settings: Settings) -> None:
    """Accept or refuse a request.

    Raises:
        UnauthorizedError: The server has a key and the request does not carry it.
        ForbiddenError: The server has no key, and the request comes from another machine, or through a name that is not this machine's
            (a web page in a browser here could otherwise reach us by a name of its own that points here), or from another site's page.
    """
    if settings.api_key is not None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        # Digests have one length: the comparison takes the same time whatever was sent.
        if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(key.strip()), _digest(settings.api_key)):
            raise UnauthorizedError("Authorization: expected this server's key", fix="Send the header 'Authorization: Bearer <key>'.")
        return
    host = request.client.host if request.client is not None else ""
    named = request.headers.getlist("host")
    for origin in request.headers.getlist("origin"):  # browsers send it with whatever a page posts, also to another site
        if origin.partition("://")[2].lower() not in {one.lower() for one in named}:
            raise ForbiddenError(
                "this server has no key, so it answers no pages of other sites",
                fix=f"Use the server's own page, or start it with {PREFIX}API_KEY set and send that key.",
            )
    if not is_loopback(host) or len(named) != 1 or not is_loopback(_host(named[0])):
        raise ForbiddenError(
            "this server has no key, so it answers callers on its own machine only, as localhost or 127.0.0.1",
            fix=f"Start the server with {PREFIX}API_KEY set and send that key.",
        )


def _host(header: str) -> str:
    """Return the host in a Host header, without brackets and port; "" for what is none.

    The whole header has to be a host: nothing before it, such as a user's name, and nothing behind it but a port.
    """
    found = _HOST.fullmatch(header)
    return "" if found is None else found["address"] or found["name"]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z.-]+))(?::[0-9]{1,5})?")
