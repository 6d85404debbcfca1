"""Who may ask: whoever sends a key of this server; on a server without keys, this machine only.

A key is one of the database's, or the one of the server's settings, which is an admin's of the first tenant. Each request looks its key up
anew, by the index of its id: a revoked key is refused from the next request on, whichever process revoked it.

That there is no key yet is remembered for a second, since a status poll would ask the database for it as long as for its job: with the
first key, made by another process, callers without one are refused within that second. The key itself is good at once.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request

from service.access.caller import ENVIRONMENT, THIS_MACHINE, Caller, Role
from service.access.key_text import KeyText, holds_key, key_from_text
from service.access.keys import AccessKey, Keys
from service.errors import ForbiddenError, StorageError, UnauthorizedError
from service.settings import PREFIX, Settings, is_loopback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whoever was let in, and the key of the database that let them in."""

    caller: Caller
    key: KeyText | None = None


class Gate:
    """Lets callers in. Safe to share between threads."""

    def __init__(self, settings: Settings, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        """Make one.

        Args:
            settings: The server's.
            keys: Of its database.
            clock: Gives seconds.
        """
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._none_until = -math.inf  # by the clock: so long it is taken for granted that there is no key
        self._noted: dict[str, float] = {}
        self._noting = threading.Lock()

    def admit(self, request: Request) -> Admitted:
        """Say who asks.

        Raises:
            UnauthorizedError: The server has keys, and the request carries none that is good, or carries it in the wrong place.
            ForbiddenError: The server has no key, and the request comes from another machine, or through a name that is not this machine's
                (a web page in a browser here could otherwise reach us by a name of its own that points here), or from another site's page.
        """
        _check_address(request)
        sent = request.headers.getlist("authorization")
        if len(sent) > 1:
            raise UnauthorizedError(f"Authorization: found {len(sent)} of these headers, expected one", fix=_SEND)
        scheme, _, key = (sent[0] if sent else "").partition(" ")
        if self._settings.api_key is not None:
            # Digests have one length: the comparison takes the same time whatever was sent.
            if scheme.lower() == "bearer" and hmac.compare_digest(_digest(key.strip()), _digest(self._settings.api_key)):
                return Admitted(ENVIRONMENT)
        elif not (self.has_keys() if sent else self._has_keys_of_late()):
            _check_is_of_this_machine(request)
            return Admitted(THIS_MACHINE)
        text = key_from_text(key.strip()) if scheme.lower() == "bearer" else None
        found = None if text is None else self._keys.find(text)
        if found is None:
            raise UnauthorizedError("Authorization: expected a key of this server", fix=_SEND)
        if (state := found.state(self._keys.now())) != "active":
            raise UnauthorizedError(f"Authorization: the key {found.id} is {state}", fix="Ask the operator for another key.")
        self._note_use(found)
        return Admitted(found.caller, text)

    def is_still_good(self, admitted: Admitted) -> bool:
        """Whether whoever was let in would still be: asked by what goes on for long. A database that does not answer changes nothing."""
        if admitted.key is None:
            return admitted.caller != THIS_MACHINE or not self.has_keys()
        try:
            found = self._keys.find(admitted.key)
        except StorageError:
            return True
        return found is not None and found.state(self._keys.now()) == "active"

    def has_keys(self) -> bool:
        """Whether there is, or was, a key in the database."""
        asked_at = self._clock()
        if self._keys.has_any():
            return True
        self._none_until = asked_at + NONE_SECONDS
        return False

    def _has_keys_of_late(self) -> bool:
        """Whether there was one a moment ago, or this process has made one since."""
        return self._keys.is_any_known or (self._clock() >= self._none_until and self.has_keys())

    def _note_use(self, key: AccessKey) -> None:
        """Note that a key is used, now and then."""
        now = self._clock()
        with self._noting:
            if now - self._noted.get(key.id, -_NOTE_SECONDS) < _NOTE_SECONDS:
                return
            self._noted[key.id] = now
        try:
            self._keys.note_use(key.id)
        except StorageError as error:
            logger.warning("key %s: its use was not noted: %s", key.id, error.detail)


def check_role(caller: Caller, needed: Role) -> None:
    """Accept a caller who may do what a role may.

    Raises:
        ForbiddenError: The caller's role is a lesser one.
    """
    if not caller.role.includes(needed):
        raise ForbiddenError(
            f"key {caller.key_id}: its role is {caller.role}, and this needs {needed}",
            fix=f"Use a key with the role {needed}, or ask the operator for one.",
        )


def _check_address(request: Request) -> None:
    """Refuse a key in the address, which proxies and browsers write down; so nobody gets used to it."""
    query = request.scope.get("query_string", b"").decode("latin-1")
    if query and (holds_key(unquote(query)) or any(name.lower() in _KEY_NAMES for name, _ in parse_qsl(query, keep_blank_values=True))):
        raise UnauthorizedError(
            "query: it holds a key, and addresses are written down on the way",
            fix=f"{_SEND} Let the operator revoke the key that was sent.",
        )


def _check_is_of_this_machine(request: Request) -> None:
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


NONE_SECONDS = 1.0
_SEND = "Send the header 'Authorization: Bearer <key>', once."
_KEY_NAMES = frozenset({"key", "api_key", "apikey", "api-key", "access_token", "token", "authorization"})
_NOTE_SECONDS = 60.0
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z.-]+))(?::[0-9]{1,5})?")
