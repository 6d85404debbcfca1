from __future__ import annotations

import asyncio
import json
import sqlite3
import threading

import httpx
import pytest
from fastapi import Depends, FastAPI

from service.api.access.gate import Gate
from service.api.access.roles import role_check
from service.api.live.event_stream import events_router
from service.jobs.live.event_text import events_from_lines
from service.jobs.storage.holds import Hold
from service.settings import Settings
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem

Told = list[tuple[int, str, dict[str, object]]]


def events_in(text: str) -> Told:
    """Return the number, kind and data of each event; comments and the time to wait are left out."""
    found: Told = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def follow(server: Server, job_id: object, **headers: str) -> Told:
    answer = server.client.get(f"/v1/jobs/{job_id}/events", headers=headers, timeout=20)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events_in(answer.text)


def test_a_job_is_followed_to_its_end(server: Server) -> None:
    job = server.submit(trials=2, seconds=0.3)
    told = follow(server, job["id"])  # ends by itself
    kinds = [kind for _, kind, _ in told]
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    assert (kinds[0], kinds[-1], kinds.count("end"), kinds.count("trial")) == ("state", "end", 1, 2)
    assert {data["stage"] for _, kind, data in told if kind == "stage"} == {"inspect", "search", "report"}
    assert "progress" in kinds
    assert told[-1][2]["state"] == "succeeded"
    assert told[-1][2]["outcome"] == "improved"
    assert [kind for _, kind, data in told if data.get("best") == 0] == ["best"]


def test_a_listener_goes_on_where_it_was(server: Server) -> None:
    job = server.wait(server.submit(trials=2)["id"])
    whole = follow(server, job["id"])
    assert follow(server, job["id"], **{"Last-Event-ID": "3"}) == whole[3:]
    assert events_in(server.client.get(f"/v1/jobs/{job['id']}/events?after=3").text) == whole[3:]


@pytest.mark.parametrize("beyond", [0, 7])
def test_there_is_nothing_behind_the_end(server: Server, beyond: int) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    last = follow(server, job["id"])[-1][0]
    answer = server.client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(last + beyond)})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_job_that_ended_before_there_were_events_has_an_end(server: Server) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    with sqlite3.connect(server.deps.settings.data_dir / "service.sqlite", timeout=30) as connection:
        connection.execute("DELETE FROM job_events WHERE job_id = ?", (job["id"],))
    assert [(number, kind, data["state"]) for number, kind, data in follow(server, job["id"])] == [(1, "end", "succeeded")]
    assert server.client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "1"}).status_code == 204


@pytest.mark.parametrize("number", ["x", "-1", "²", "9" * 30])
def test_a_number_that_is_none_is_refused(server: Server, number: str) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    headers = {b"Last-Event-ID": number.encode()}
    assert_problem(server.client.get(f"/v1/jobs/{job['id']}/events", headers=headers), 422, "invalid-request")


def test_many_listeners_are_told_the_same(server: Server) -> None:
    job, texts = server.submit(trials=2, seconds=0.5), []

    def listen() -> None:
        with httpx.Client(base_url=server.client.base_url, trust_env=False, timeout=20) as client:
            texts.append(client.get(f"/v1/jobs/{job['id']}/events").text)

    threads = [threading.Thread(target=listen) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(texts) == 20
    assert events_in(texts[0])[-1][1] == "end"
    assert all(events_in(text) == events_in(texts[0]) for text in texts)


def test_silence_is_filled_with_comments(server: Server) -> None:
    job_id = server.submit(trials=1, seconds=30)["id"]
    server.wait(job_id, "running")
    app = FastAPI()
    guard = Depends(role_check(Gate(Settings(api_key="secret"), server.deps.store.keys)))
    app.include_router(events_router(server.deps, heartbeat_seconds=0.5), dependencies=[guard])
    server.deps.store.events.after(str(job_id), 0)

    async def first_bytes() -> str:
        found: list[str] = []
        enough = asyncio.Event()

        async def send(message: dict[str, object]) -> None:
            found.append(bytes(message.get("body", b"")).decode())  # type: ignore[call-overload]  # the messages of ASGI have no type
            if "".join(found).count(": still here\n\n") == 2:
                enough.set()

        async def receive() -> dict[str, object]:
            await enough.wait()
            return {"type": "http.disconnect"}

        path = f"/v1/jobs/{job_id}/events"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope["headers"] = [(b"authorization", b"Bearer secret")]
        await asyncio.wait_for(app({**scope, "asgi": {"version": "3.0"}, "http_version": "1.1"}, receive, send), 20)  # type: ignore[arg-type]
        return "".join(found)

    text = asyncio.run(first_bytes())
    server.client.post(f"/v1/jobs/{job_id}/cancel")
    assert text.startswith("retry: 2000\n\n")


def test_who_listens_to_a_job_that_is_deleted_is_let_go(server: Server) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    assert server.delete(job["id"]) == 204
    assert_problem(server.client.get(f"/v1/jobs/{job['id']}/events"), 410, "job-removed")


def test_a_listener_is_told_that_the_job_waits_and_goes_on(server: Server) -> None:
    job_id = str(server.submit(trials=1, seconds=30)["id"])
    server.wait(job_id, "running")
    holds, states, numbers = server.deps.store.holds, [], []
    holds.put(job_id, Hold("disk: it is full", "Make room.", server.deps.clock()))
    with server.client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=20) as answer:
        for told in events_from_lines(answer.iter_lines()):
            numbers.append(told.number)
            if told.kind in {"state", "end"}:
                states.append(told.data["state"])
            if states[-1:] == ["on_hold"] and holds.ids():
                holds.release(job_id)
            elif states[-2:] == ["on_hold", "running"]:
                server.deps.store.cancel(job_id)
                states.append("seen")
    assert states == ["queued", "running", "on_hold", "running", "seen", "cancelled"]
    assert numbers == sorted(numbers)
