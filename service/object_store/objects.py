"""Whole objects under one prefix of a bucket: written all at once, tried again where the store fails for a moment.

What fails for longer is an ``ObjectStoreError``: nobody's request or job is at fault, and the same works again later.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.disk_faults import ERRNOS
from service.errors import NotFoundError, ObjectStoreError
from service.object_store.filesystem import FileSystem

logger = logging.getLogger(__name__)
T = TypeVar("T")

TRIES = 4
LONGEST_SECONDS = 15.0  # what failed after that is not tried again: a caller waits
REST_SECONDS = 1.0  # after it was given up it is not asked for so long
FIRST_PAUSE_SECONDS = 0.2  # doubled each time, and half as much again at most, by chance


class Objects:
    """The objects of one deployment. Safe to share between threads."""

    def __init__(
        self,
        filesystem: FileSystem,
        folder: str,
        *,
        public: FileSystem | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a part of a bucket, which has to be there.

        Args:
            filesystem: The store.
            folder: ``bucket`` or ``bucket/prefix``.
            public: The same store as callers of the API reach it, for links; as this process reaches it by default.
            sleep: Waits for so many seconds.
            clock: Gives seconds.
        """
        self._filesystem = filesystem
        self._public = public or filesystem
        self._folder = folder
        self._sleep = sleep
        self._clock = clock
        self._checked_at: float | None = None  # when the store was last found to work
        self._failure: tuple[float, ObjectStoreError] | None = None  # when it was last given up, and why

    def put(self, path: Path, key: str) -> None:
        """Store a copy of a local file.

        Raises:
            ObjectStoreError: The store cannot be used now.
        """
        self._tried(lambda: self._filesystem.put_file(str(path), self._path(key)))

    def get(self, key: str, path: Path) -> None:
        """Write an object to a local file.

        Raises:
            NotFoundError: There is no such object.
            ObjectStoreError: The store cannot be used now.
            OSError: The local disk takes it not.
        """
        self._tried(lambda: self._filesystem.get_file(self._path(key), str(path)), key)

    def write(self, key: str, data: bytes) -> None:
        """Store bytes.

        Raises:
            ObjectStoreError: The store cannot be used now.
        """
        self._tried(lambda: self._filesystem.pipe_file(self._path(key), data))

    def read(self, key: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            NotFoundError: There is no such object.
            ObjectStoreError: The store cannot be used now.
        """
        return self._tried(lambda: self._filesystem.cat_file(self._path(key)), key)

    def remove(self, key: str) -> None:
        """Remove an object; one that is not there is fine.

        Raises:
            ObjectStoreError: The store cannot be used now.
        """
        try:
            self._tried(lambda: self._filesystem.rm_file(self._path(key)), key)
        except NotFoundError:
            return

    def link(self, key: str, seconds: int, **headers: str) -> str:
        """Return an address from which whoever has it may download an object.

        Args:
            key: Of the object, which is not looked at.
            seconds: How long it is good.
            headers: Parameters of S3's GetObject: ``ResponseContentType``, ``ResponseContentDisposition``.

        Raises:
            ObjectStoreError: There are no credentials to sign with.
        """
        return self._tried(lambda: self._public.url(self._path(key), expires=seconds, **headers))

    def check(self, probe: Callable[[], None]) -> None:
        """Look whether the store works, unless it was found to a moment ago.

        Args:
            probe: Reads and writes a little.

        Raises:
            ObjectStoreError: It does not.
        """
        if self._checked_at is None or self._clock() - self._checked_at >= _FRESH_SECONDS:
            probe()
            self._checked_at = self._clock()

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}"

    def _tried(self, work: Callable[[], T], key: str | None = None) -> T:
        begun = self._clock()
        if self._failure is not None and begun - self._failure[0] < REST_SECONDS:  # many callers need not all wait for it
            raise ObjectStoreError(self._failure[1].detail, fix=self._failure[1].fix)
        for left in reversed(range(TRIES)):
            try:
                return work()
            except FileNotFoundError as exc:
                if exc.errno is not None:  # a file of this machine
                    raise
                if key is not None and "bucket" not in str(exc).lower():
                    raise NotFoundError(f"object {key}: it is not in the store", fix="Upload it again.") from exc
                self._checked_at = None
                raise ObjectStoreError("object store: its bucket is not there", fix=_BUCKET_FIX) from exc
            except PermissionError as exc:
                self._checked_at = None
                raise ObjectStoreError(f"object store: it refuses this server ({exc})", fix=_KEY_FIX) from exc
            except Exception as exc:  # of botocore, aiohttp, the network: none has a class in common
                if isinstance(exc, OSError) and exc.errno in _LOCAL:
                    raise
                self._checked_at = None
                if left == 0 or self._clock() - begun > LONGEST_SECONDS:
                    problem = ObjectStoreError(f"object store: it cannot be used now ({_words(exc)})", fix=_fix(exc))
                    self._failure = (self._clock(), problem)
                    raise problem from exc
                pause = FIRST_PAUSE_SECONDS * 2 ** (TRIES - 1 - left) * random.uniform(1.0, 1.5)
                logger.info("object store: %s; tried again in %.1f s", _words(exc), pause)
                self._sleep(pause)
        raise AssertionError("the last try returns or raises")


def _fix(error: Exception) -> str:
    """Return what to do; botocore, which is optional, has several errors of credentials that it does not find or cannot renew."""
    return _KEY_FIX if "Credential" in type(error).__name__ else _REACH_FIX


def _words(error: Exception) -> str:
    return type(error).__name__ if not str(error) else f"{type(error).__name__}: {str(error)[:200]}"


_FRESH_SECONDS = 5.0
_LOCAL = ERRNOS - {errno.EIO}  # the store's own errors are called EIO too
_BUCKET_FIX = "Ask the operator to create the bucket that ONNX_TRT_OPTIMIZER_OBJECT_STORE names, or to name another."
_KEY_FIX = "Ask the operator to look at the credentials (AWS_ACCESS_KEY_ID, ...) and at what they may do with the bucket."
_REACH_FIX = "Try again later, or ask the operator to look at the object store and the network to it."
