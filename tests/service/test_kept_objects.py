"""A server that has run many jobs keeps no more objects than one that has run few: none are kept for each job, whoever would keep them."""

from __future__ import annotations

import gc
import itertools
import re
import sys
import threading
import time
import urllib.parse
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.jobs import runner
from service.jobs.upkeep import log_text
from tests.faults.server_process import wait_until
from tests.service.conftest import Server, running_server

WARM_UP, JOBS = 12, 8
TURNS = 3  # of so many jobs: what grows in each of them grows with the jobs
_FOR_EVER_SECONDS = 1000.0
_LOOKS = 3  # the least of them counts: a request that is just answered has objects of its own


@dataclass(frozen=True)
class Kept:
    """What a process keeps at one moment.

    Attributes:
        types: How many objects there are of each type that Python itself does not have.
        lengths: Of each container, by its identity.
        threads: How many there are.
    """

    types: Counter[str]
    lengths: dict[int, int]
    threads: int


def kept() -> Kept:
    """Look at this process; what Python's own small caches hold, which are bounded, is dropped before."""
    looks = []
    for _ in range(_LOOKS):
        urllib.parse.clear_cache()  # type: ignore[attr-defined]  # undocumented, and there for tests
        re.purge()
        gc.collect()
        with _alone():
            looks.append(_look(gc.get_objects()))
        time.sleep(0.1)
    first, *others = looks
    for other in others:
        first = Kept(first.types & other.types, _least(first.lengths, other.lengths), min(first.threads, other.threads))
    return first


def _look(objects: list[object]) -> Kept:
    types = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in objects if type(one).__module__ not in _PYTHONS_OWN)
    return Kept(types, {id(one): len(one) for one in _containers(objects)}, threading.active_count())


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other threads waiting: a tuple that one of them is just making cannot be made where somebody else holds it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_FOR_EVER_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _containers(objects: list[object]) -> Iterator[Sized]:
    """Yield the containers among objects, and those in them that the collector leaves out, as they hold nothing but texts and numbers."""
    for one in (*objects, *gc.get_referents(*objects)):
        if issubclass(type(one), _CONTAINERS):  # the object itself is not asked: it may stand for another one
            assert isinstance(one, _CONTAINERS)
            yield one


def _least(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {key: min(length, other[key]) for key, length in one.items() if key in other}


def growing(looks: list[Kept], least: int) -> list[str]:
    """Return what grew by so much from each look to the next."""
    pairs = list(itertools.pairwise(looks))
    found = [name for name in looks[-1].types if all(after.types[name] - before.types[name] >= least for before, after in pairs)]
    ids = [
        key
        for key in looks[-1].lengths
        if all(key in before.lengths and after.lengths.get(key, 0) - before.lengths[key] >= least for before, after in pairs)
    ]
    if all(after.threads - before.threads >= least for before, after in pairs):
        found.append("threads")
    if not ids:
        return found
    wanted = set(ids)
    with _alone():
        objects = {id(one): one for one in _containers(gc.get_objects()) if id(one) in wanted}
    return found + [f"{type(objects[key])} of {looks[-1].lengths[key]}: {repr(objects[key])[-200:]}" for key in ids if key in objects]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(log_text, "_KNOWN", 2)  # so that it is full after the warm-up
    with running_server(tmp_path, kept=frozenset({"inspect"})) as server:
        yield server


def run(server: Server, jobs: int) -> None:
    """Run jobs one after the other, ask for all that they have, and delete them."""
    for _ in range(jobs):
        job_id = server.submit(trials=2)["id"]
        server.wait(job_id)
        for path in ("", "/engine", "/artifacts", "/log", "/events"):
            assert server.client.get(f"/v1/jobs/{job_id}{path}").is_success
        assert server.client.get("/metrics").is_success
        assert server.delete(job_id) == 204


@pytest.mark.long
def test_nothing_is_kept_of_jobs_that_came_and_went(server: Server) -> None:
    run(server, WARM_UP)
    looks = [kept()]
    for _ in range(TURNS):
        run(server, JOBS)
        looks.append(kept())
    assert growing(looks, JOBS) == []


def test_a_server_gives_back_now_and_then_what_the_c_library_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[float] = []
    monkeypatch.setattr(runner, "_MEMORY_SECONDS", 0.1)
    monkeypatch.setattr(runner, "return_free_memory", lambda: returned.append(time.monotonic()))
    with running_server(tmp_path):
        wait_until(lambda: len(returned) > 2, 30)


class _Thing:
    pass


@pytest.mark.parametrize("what", ["objects", "entries"])
def test_what_is_kept_is_found(what: str) -> None:
    leak: list[object] = []
    looks = [kept()]
    for _ in range(TURNS):
        leak += [_Thing() if what == "objects" else str(number) for number in range(JOBS)]
        looks.append(kept())
    found = growing(looks, JOBS)
    assert any(str(list) in one for one in found)
    assert any(one.endswith("._Thing") for one in found) == (what == "objects")


_PYTHONS_OWN = {"builtins", "types", "weakref", "_thread", "threading"}
_CONTAINERS = (dict, list, set, deque, OrderedDict)
