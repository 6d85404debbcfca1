from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.errors import NotFoundError, ObjectStoreError
from service.object_store.objects import LONGEST_SECONDS, REST_SECONDS, TRIES, Objects


@dataclass
class FaultyFileSystem:
    """Raises what it is told to, one error a call, before it works."""

    errors: list[Exception] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    calls: int = 0
    on_call: Callable[[], object] = lambda: None

    def put_file(self, lpath: str, rpath: str) -> None:
        self._call()
        self.stored[rpath] = Path(lpath).read_bytes()

    def get_file(self, rpath: str, lpath: str) -> None:
        self._call()
        Path(lpath).write_bytes(self._bytes(rpath))

    def pipe_file(self, path: str, value: bytes) -> None:
        self._call()
        self.stored[path] = value

    def cat_file(self, path: str) -> bytes:
        self._call()
        return self._bytes(path)

    def rm_file(self, path: str) -> None:
        self._call()
        self._bytes(path)
        del self.stored[path]

    def url(self, path: str, expires: int, **parameters: str) -> str:
        self._call()
        return f"http://store/{path}?{expires}&{parameters}"

    def _bytes(self, path: str) -> bytes:
        if path not in self.stored:
            raise FileNotFoundError("The specified key does not exist.")
        return self.stored[path]

    def _call(self) -> None:
        self.calls += 1
        self.on_call()
        if self.errors:
            raise self.errors.pop(0)


class ConnectionOfBotocoreError(Exception):
    """As botocore's, of no class of Python's own."""


def objects(filesystem: FaultyFileSystem, slept: list[float] | None = None) -> Objects:
    return Objects(filesystem, "bucket/prefix", sleep=(slept if slept is not None else []).append)


def test_objects_lie_under_the_prefix_and_are_read_back(tmp_path: Path) -> None:
    filesystem = FaultyFileSystem()
    store = objects(filesystem)
    (tmp_path / "file").write_bytes(b"of a file")
    store.put(tmp_path / "file", "a")
    store.write("b", b"bytes")
    assert filesystem.stored == {"bucket/prefix/a": b"of a file", "bucket/prefix/b": b"bytes"}
    store.get("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"of a file"
    assert store.read("b") == b"bytes"
    store.remove("b")
    store.remove("b")
    with pytest.raises(NotFoundError, match="object b"):
        store.read("b")


def test_what_fails_for_a_moment_is_tried_again_after_longer_and_longer_pauses() -> None:
    slept: list[float] = []
    filesystem = FaultyFileSystem([ConnectionOfBotocoreError("refused"), OSError(errno.EBUSY, "slow down"), TimeoutError()])
    objects(filesystem, slept).write("a", b"x")
    assert filesystem.stored == {"bucket/prefix/a": b"x"}
    assert len(slept) == 3
    assert slept[0] < slept[1] < slept[2] < 1.3  # 0.2, 0.4 and 0.8 s, each with half as much again at most


def test_what_goes_on_failing_is_a_storage_error_that_says_what_the_store_said() -> None:
    filesystem = FaultyFileSystem([ConnectionOfBotocoreError("could not connect")] * 10)
    with pytest.raises(ObjectStoreError, match=r"cannot be used now \(ConnectionOfBotocoreError: could not connect\)") as raised:
        objects(filesystem).read("a")
    assert (filesystem.calls, raised.value.status) == (TRIES, 503)


def test_after_it_was_given_up_the_store_rests_for_a_moment() -> None:
    now = [0.0]
    filesystem = FaultyFileSystem([ConnectionOfBotocoreError("could not connect")] * TRIES)
    store = Objects(filesystem, "bucket", sleep=lambda _: None, clock=lambda: now[0])
    for _ in range(3):
        with pytest.raises(ObjectStoreError, match="could not connect"):
            store.write("a", b"x")
    assert filesystem.calls == TRIES
    now[0] += REST_SECONDS
    store.write("a", b"x")
    assert filesystem.stored == {"bucket/a": b"x"}


def test_a_store_that_answers_late_is_not_waited_for_again_and_again() -> None:
    now = [0.0]

    def wait() -> None:
        now[0] += LONGEST_SECONDS + 1

    filesystem = FaultyFileSystem([TimeoutError()] * 10, on_call=wait)
    with pytest.raises(ObjectStoreError):
        Objects(filesystem, "bucket", sleep=lambda _: None, clock=lambda: now[0]).read("a")
    assert filesystem.calls == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [(PermissionError("Forbidden"), "refuses this server"), (FileNotFoundError("The specified bucket does not exist"), "its bucket")],
)
def test_what_only_an_operator_mends_is_said_at_once(error: Exception, words: str) -> None:
    filesystem = FaultyFileSystem([error])
    with pytest.raises(ObjectStoreError, match=words):
        objects(filesystem).read("a")
    assert filesystem.calls == 1


class NoCredentialsError(Exception):
    """As botocore calls it; it has no class in common with other errors."""


def test_missing_credentials_are_no_trouble_of_the_network() -> None:
    with pytest.raises(ObjectStoreError) as caught:
        objects(FaultyFileSystem([NoCredentialsError("Unable to locate credentials")] * 10)).read("a")
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix
    with pytest.raises(ObjectStoreError) as caught:
        objects(FaultyFileSystem([TimeoutError()] * 10)).read("a")
    assert "AWS_ACCESS_KEY_ID" not in caught.value.fix


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_fault_of_the_local_disk_is_no_fault_of_the_store(tmp_path: Path, number: int) -> None:
    filesystem = FaultyFileSystem([OSError(number, os.strerror(number))])
    with pytest.raises(OSError, match=os.strerror(number)):
        objects(filesystem).get("a", tmp_path / "file")
    assert filesystem.calls == 1


def test_a_missing_local_file_is_no_missing_object(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects(FaultyFileSystem()).put(tmp_path / "none", "a")


def test_links_are_of_the_store_as_callers_reach_it() -> None:
    public = FaultyFileSystem()
    store = Objects(FaultyFileSystem(), "bucket/prefix", public=public)
    assert store.link("a", 60, ResponseContentType="text/plain") == "http://store/bucket/prefix/a?60&{'ResponseContentType': 'text/plain'}"
    assert public.calls == 1


def test_the_store_is_looked_at_every_few_seconds_and_at_once_after_an_error() -> None:
    now, probes = [0.0], [0]
    filesystem = FaultyFileSystem()
    store = Objects(filesystem, "bucket", sleep=lambda _: None, clock=lambda: now[0])

    def probe() -> None:
        probes[0] += 1

    store.check(probe)
    store.check(probe)
    assert probes == [1]
    now[0] = 6.0
    store.check(probe)
    assert probes == [2]
    filesystem.errors = [PermissionError("Forbidden")]
    with pytest.raises(ObjectStoreError):
        store.write("a", b"x")
    store.check(probe)
    assert probes == [3]
