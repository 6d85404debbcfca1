"""Takes the body of a request in pieces: while one is hashed and written by another thread, the next one arrives. Memory is constant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from calibration.errors import OptimizerError
from service.errors import BadRequestError


async def hand_over(request: Request, take: Callable[[bytes], None]) -> None:
    """Give the body to a function, in another thread, and read on while it works: no more than two pieces are held.

    Args:
        request: The request.
        take: Called with one chunk after the other, and no more once this returns or raises.

    Raises:
        OptimizerError: ``take`` refuses it, or the body ends early.
    """
    at_work: asyncio.Future[None] | None = None
    async with aclosing(pieces_of(request)) as pieces:
        try:
            async for piece in pieces:
                if at_work is not None:
                    await _end(at_work)
                at_work = asyncio.ensure_future(run_in_threadpool(_take_each, take, piece))
            if at_work is not None:
                await _end(at_work)
        except OptimizerError:
            if at_work is not None:
                await asyncio.wait({at_work})
            await _drain(pieces)
            raise
        finally:
            while at_work is not None and not at_work.done():  # whoever closes what it writes to has to wait for it
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({at_work})


def _take_each(take: Callable[[bytes], None], piece: list[bytes]) -> None:
    for chunk in piece:
        take(chunk)


async def _end(at_work: asyncio.Future[None]) -> None:
    """Wait for work that goes on to its end, also where this wait is cancelled."""
    await asyncio.wait({at_work})
    at_work.result()


async def pieces_of(request: Request) -> AsyncGenerator[list[bytes], None]:
    """Yield the body in pieces of about a MiB, each as the network gave it: its own chunks are too small to hand each to another thread."""
    held: list[bytes] = []
    size_bytes = 0
    try:
        async for chunk in request.stream():
            held.append(chunk)
            size_bytes += len(chunk)
            if size_bytes >= _PIECE_BYTES:
                yield held
                held, size_bytes = [], 0
    except ClientDisconnect as exc:
        raise BadRequestError("body: the connection closed before its end", fix="Send the request again.") from exc
    if size_bytes:
        yield held


async def _drain(pieces: AsyncIterator[list[bytes]]) -> None:
    """Read on for a moment: a client that is still sending would see a broken connection instead of our answer."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for piece in pieces:
                left -= sum(map(len, piece))
                if left < 0:
                    return
    except (TimeoutError, BadRequestError):
        return


_PIECE_BYTES = 2**20
_DRAIN_BYTES = 64 * 2**20
_DRAIN_SECONDS = 5.0
