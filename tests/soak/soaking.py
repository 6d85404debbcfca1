"""The soak: keeps some jobs in flight, kills what chance says when it says so, checks each job that ends, and has it collected."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx
import psutil

from tests.faults.server_process import FINISHED
from tests.soak.footprint import Footprint, footprint
from tests.soak.places import HIT_STAGES, Place
from tests.soak.tiny_jobs import TinyJob

IN_FLIGHT = 4  # jobs that wait or run
KEPT = 5  # finished jobs that are not collected yet
LONGEST_SECONDS = 300.0  # without any job that ends


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        seed: Decides jobs, kills and moments.
        jobs: How many.
        seconds_between_kills: On average; moments are those of a Poisson process.
        calm_share: Of the jobs, the last ones, during which only stages are killed: how memory grows is seen in processes that live long.
        most_seconds: After so long no more jobs are sent.
    """

    seed: int
    jobs: int
    seconds_between_kills: float
    calm_share: float = 0.4
    most_seconds: float = float("inf")


@dataclass
class Soaked:
    """What came of it."""

    seconds: float = 0.0
    submitted: int = 0
    ended: int = 0
    lost: list[str] = field(default_factory=list)  # no longer known, or never ended
    wrong: list[str] = field(default_factory=list)  # why
    sent_twice: int = 0  # submissions whose answer a kill swallowed, and that were sent again
    kills: dict[str, int] = field(default_factory=dict)
    looks: list[Footprint] = field(default_factory=list)
    calm_from: int = 0  # jobs that had ended when the calm began
    left: Mapping[str, int] = field(default_factory=dict)  # rows of tables, when the last job was collected


def soak(place: Place, plan: Plan, say: Callable[[str], None] = lambda line: None) -> Soaked:
    """Run the jobs in a place that is up.

    Raises:
        AssertionError: Nothing ends any more.
    """
    found = Soaked()
    rng = random.Random(f"kills {plan.seed}")
    begun = ended_at = time.monotonic()
    kill_at = begun + rng.expovariate(1 / plan.seconds_between_kills)
    flying: dict[str, TinyJob] = {}
    finished: list[str] = []
    hit: set[str] = set()

    def is_calm() -> bool:
        done = max(found.ended / plan.jobs, (time.monotonic() - begun) / plan.most_seconds)
        return done >= 1 - plan.calm_share

    while found.ended < found.submitted or (found.submitted < plan.jobs and time.monotonic() - begun < plan.most_seconds):
        if found.submitted < plan.jobs and len(flying) < IN_FLIGHT and time.monotonic() - begun < plan.most_seconds:
            job = TinyJob(found.submitted, plan.seed)
            job_id, sent = _submitted(place.client, job)
            assert job_id not in flying
            flying[job_id] = job
            found.submitted += 1
            found.sent_twice += sent > 1
        if time.monotonic() >= kill_at:
            _kill(place, rng, flying, hit, found, is_calm=is_calm())
            kill_at = time.monotonic() + rng.expovariate(1 / plan.seconds_between_kills)
        for job_id in list(flying):
            state = _job(place.client, job_id)
            if state is None or state.get("state") not in (*FINISHED, "gone"):
                continue
            job, ended_at = flying.pop(job_id), time.monotonic()
            found.ended += 1
            if state.get("state") == "gone":
                found.lost.append(job_id)
                continue
            problem = job.wrong(state, _engine(place.client, job_id) if state["state"] == "succeeded" else b"")
            if problem is not None:
                found.wrong.append(f"job {job.number}: {problem}")
                say(found.wrong[-1])
            finished.append(job_id)
            if len(finished) > KEPT:
                _collected(place.client, finished.pop(0))
            with contextlib.suppress(psutil.Error):  # one that was killed a moment ago
                found.looks.append(footprint(place, time.monotonic() - begun, found.ended))
            if is_calm() and not found.calm_from:
                found.calm_from = found.ended
            say(f"{found.ended} of {plan.jobs} ended after {time.monotonic() - begun:.0f} s, {sum(found.kills.values())} kills")
        assert time.monotonic() - ended_at < LONGEST_SECONDS, f"no job ends any more; these wait or run: {list(flying)}"
        time.sleep(0.1)
    for job_id in finished:
        _collected(place.client, job_id)
    found.seconds = time.monotonic() - begun
    found.left = place.rows()
    return found


def _kill(place: Place, rng: random.Random, flying: Mapping[str, TinyJob], hit: set[str], found: Soaked, *, is_calm: bool) -> None:
    """Kill what chance says. The stages of one job are hit once: a stage that is ended twice from outside counts as failed."""
    running = {job_id for job_id in flying if (_job(place.client, job_id) or {}).get("state") == "running"}
    names = [name for name in place.kills if not (name in HIT_STAGES and running & hit)]
    if is_calm:
        names = [name for name in names if name in HIT_STAGES]
    if not names:
        return
    name = rng.choice(names)
    if name in HIT_STAGES:
        hit |= running
    place.kills[name](rng)
    found.kills[name] = found.kills.get(name, 0) + 1


def _submitted(client: httpx.Client, job: TinyJob) -> tuple[str, int]:
    """Return the id of a job, and how often it had to be sent: an answer may have been lost, or the server is not there."""
    files, sent, until = job.files(), 0, time.monotonic() + LONGEST_SECONDS
    while True:
        sent += 1
        with contextlib.suppress(httpx.TransportError):
            answer = client.post("/v1/jobs", files=files, data={"config": job.config}, headers={"Idempotency-Key": job.key})
            if answer.is_success:
                return str(answer.json()["id"]), sent
            assert answer.status_code >= 500, answer.text
        assert time.monotonic() < until, "no job can be submitted any more"
        time.sleep(0.5)


def _job(client: httpx.Client, job_id: str) -> dict[str, object] | None:
    """Return a job; None while nobody answers, the state "gone" where it is not known."""
    try:
        answer = client.get(f"/v1/jobs/{job_id}")
    except httpx.TransportError:
        return None
    if answer.status_code in (404, 410):
        return {"state": "gone"}
    return dict(answer.json()) if answer.is_success else None


def _engine(client: httpx.Client, job_id: str) -> bytes:
    until = time.monotonic() + LONGEST_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = client.get(f"/v1/jobs/{job_id}/engine")
            if answer.is_success:
                return answer.content
            assert answer.status_code >= 500, answer.text
        assert time.monotonic() < until, "no engine can be downloaded any more"
        time.sleep(0.5)


def _collected(client: httpx.Client, job_id: str) -> None:
    """Delete a job that has ended."""
    until = time.monotonic() + LONGEST_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = client.delete(f"/v1/jobs/{job_id}")
            if answer.status_code in (204, 410):
                return
            assert answer.status_code >= 500, answer.text
        assert time.monotonic() < until, json.dumps({"not deleted": job_id})
        time.sleep(0.5)
