from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import cast

import pytest
from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequestError, TooLargeError
from service.jobs.receiving.body import hand_over

CHUNK = b"x" * 2**18  # four make a piece
SECONDS = 20.0  # for what takes none


class Body:
    """A request that gives so many chunks, and counts them."""

    def __init__(self, chunks: int, end: BaseException | None = None) -> None:
        self.given = 0
        self._chunks, self._end = chunks, end

    async def stream(self) -> AsyncGenerator[bytes, None]:
        for _ in range(self._chunks):
            self.given += 1
            yield CHUNK
            await asyncio.sleep(0)
        if self._end is not None:
            raise self._end

    @property
    def request(self) -> Request:
        return cast("Request", self)


def handed_over(body: Body, take: Callable[[bytes], None]) -> None:
    asyncio.run(asyncio.wait_for(hand_over(body.request, take), SECONDS))


@pytest.mark.parametrize("chunks", [0, 1, 3, 4, 5, 41])
def test_every_chunk_is_taken_once_and_in_order_by_another_thread(chunks: int) -> None:
    taken: list[tuple[int, int]] = []
    handed_over(Body(chunks), lambda chunk: taken.append((threading.get_ident(), len(chunk))))
    assert [size for _, size in taken] == [len(CHUNK)] * chunks
    assert threading.get_ident() not in {thread for thread, _ in taken}


def test_next_piece_arrives_while_one_is_taken_and_no_more_than_that() -> None:
    body, seen = Body(100), []

    async def run() -> None:
        goes_on, begun = threading.Event(), threading.Event()

        def take(_: bytes) -> None:
            begun.set()
            assert goes_on.wait(SECONDS)

        task = asyncio.ensure_future(hand_over(body.request, take))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        for _ in range(1000):  # far more turns of the loop than eight chunks take
            await asyncio.sleep(0)
        seen.append(body.given)
        goes_on.set()
        await task

    asyncio.run(run())
    assert seen == [8]
    assert body.given == 100


def test_who_refuses_is_heard_and_the_rest_of_the_body_is_read() -> None:
    body, taken = Body(40), []

    def take(_: bytes) -> None:
        taken.append(1)
        if len(taken) == 3:
            raise TooLargeError("file: it is larger", fix="Send less.")

    with pytest.raises(TooLargeError):
        handed_over(body, take)
    assert len(taken) == 3
    assert body.given == 40


def test_refusal_of_the_last_piece_is_heard() -> None:
    def take(_: bytes) -> None:
        raise TooLargeError("file: it is larger", fix="Send less.")

    with pytest.raises(TooLargeError):
        handed_over(Body(1), take)


def test_body_that_ends_early_is_taken_no_more_once_that_is_told() -> None:
    """Whoever called closes the file then: a thread that still writes to it would meet a closed one."""
    ended: list[bool] = []

    def take(_: bytes) -> None:
        threading.Event().wait(0.05)
        ended.append(True)

    with pytest.raises(BadRequestError, match="closed before its end"):
        handed_over(Body(5, ClientDisconnect()), take)
    assert len(ended) == 4


def test_who_is_cancelled_waits_for_what_is_being_taken() -> None:
    ended: list[bool] = []

    async def run() -> None:
        begun = threading.Event()

        def take(_: bytes) -> None:
            begun.set()
            threading.Event().wait(0.1)
            ended.append(True)

        task = asyncio.ensure_future(hand_over(Body(400).request, take))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        count = len(ended)
        await asyncio.sleep(0.3)
        assert len(ended) == count

    asyncio.run(run())
    assert len(ended) == 4  # the whole piece
