"""What holds for every answer: HEAD beside GET, headers that limit what a browser does with it, counting, and the audit log."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AnswerCutError(Exception):
    """An answer that has begun is to end early: the connection closes, so that nobody takes what arrived for the whole."""


@dataclass(frozen=True, slots=True, order=True)
class Answered:
    """What kind of answer it was."""

    method: str
    route: str  # its template: /v1/jobs/{job_id}
    status: int


class RequestCounts:
    """How many requests were answered how, since the server started. Safe to share between threads."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._answers: Counter[Answered] = Counter()
        self._seconds: dict[str, float] = {}
        self._received_bytes: Counter[str] = Counter()

    def note(self, answered: Answered, seconds: float, received_bytes: int) -> None:
        """Count an answer.

        Args:
            answered: What it was.
            seconds: From the request to the end of the answer.
            received_bytes: Size of the request's body, as far as it was read.
        """
        with self._changing:
            self._answers[answered] += 1
            self._seconds[answered.route] = self._seconds.get(answered.route, 0.0) + seconds
            self._received_bytes[answered.route] += received_bytes

    def answers(self) -> dict[Answered, int]:
        """Return how many there were of each kind."""
        with self._changing:
            return dict(sorted(self._answers.items()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds that the answers of each route took together."""
        with self._changing:
            return dict(sorted(self._seconds.items()))

    def received_bytes(self) -> dict[str, int]:
        """Return the bytes that the requests to each route had in their bodies."""
        with self._changing:
            return dict(sorted(self._received_bytes.items()))


class Application(FastAPI):
    """The web framework's application, of which every answer has the headers and is counted, also that to an error nobody expected.

    HEAD is answered wherever GET is.
    """

    counts: RequestCounts
    audit: Callable[[Scope, int], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        begun, status, received = time.monotonic(), 0, 0
        method, is_head = scope["method"] if scope["method"] in _METHODS else "other", scope["method"] == "HEAD"
        scope = {**scope, "method": "GET"} if is_head else scope  # of which it is the answer without the body

        async def received_by_us() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sent_by_us(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.audit({**scope, "method": "HEAD"} if is_head else scope, status)
                _add_headers(MutableHeaders(scope=message))
                await send(message)
                if is_head:  # whoever would still make the body is told that nobody reads on
                    await send({"type": "http.response.body", "body": b""})
            elif not is_head:
                await send(message)

        try:
            await super().__call__(scope, received_by_us, sent_by_us)
        except AnswerCutError as cut:
            logger.info("%s %s: the answer ends early: %s", scope["method"], scope["path"], cut)
        finally:
            route = getattr(scope.get("route"), "path", None) or "none"
            self.counts.note(Answered(method, route, status), time.monotonic() - begun, received)


def _add_headers(headers: MutableHeaders) -> None:
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", _PAGE_POLICY if is_page else _DATA_POLICY)
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if "frame-ancestors" not in headers["Content-Security-Policy"]:
        headers["Content-Security-Policy"] += "; frame-ancestors 'self'"
    if "frame-ancestors 'none'" in headers["Content-Security-Policy"]:
        headers.setdefault("X-Frame-Options", "DENY")


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
