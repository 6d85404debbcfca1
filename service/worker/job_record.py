"""What an interrupted job had done: its stages' results, kept until the job ends, so that the same job goes on where it was.

Trials and timings are found by this job alone: same files, same configuration, same machine. What any job may use (``stage_cache``) is only
noted here. The record is a file of lines in the folder of the cache; the run that works on the job holds a lock on it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import Workspace
from service.worker.stage_cache import StageCache

logger = logging.getLogger(__name__)

_FOLDER = "unfinished-jobs"
_KEPT_SECONDS = 30 * 24 * 3600.0  # a job that was not continued by then is forgotten


class JobRecord:
    """The results of one job's stages. A context: without ``forget`` they stay at its end, for the next run of the same job."""

    def __init__(self, cache: StageCache, job: str) -> None:
        """Open the record; where another run works on the same job, there is none, and nothing is found or kept for it.

        Args:
            cache: Where results lie.
            job: What tells the job from all others: hex digits.
        """
        self._cache = cache
        self._job = job
        self._path = cache.root / _FOLDER / job
        self._lines: dict[str, str] = {}  # the key of the result of each run of a stage, by the run's name
        self._own: set[str] = set()  # keys of what no other job may use
        self._lock = self._locked()
        if self._lock is not None:
            self._read(self._path.read_bytes().decode("utf-8", errors="replace"))
        self.done = sum(map(cache.has, self._lines.values()))  # runs of stages that the last run of the job finished

    def __enter__(self) -> JobRecord:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.close()

    def run(
        self,
        name: str,
        stage: str,
        request: Mapping[str, object],
        workspace: Workspace,
        compute: Callable[[], Mapping[str, object]],
    ) -> tuple[Mapping[str, object], bool]:
        """Return the result of a stage, and whether it was found: from this job's last run or, of some stages, from any job.

        Args:
            name: Of the run of the stage; unique in the job and the same when the job runs again.
            stage: The stage's name.
            request: What it reads.
            workspace: Where its files are.
            compute: Runs it.
        """
        is_shared = self._cache.keeps(stage)
        if not is_shared and self._lock is None:
            return compute(), False
        key = self._cache.key(stage, request, workspace, job="" if is_shared else f"{self._job} {name}")
        kept = self._cache.find(key, workspace)
        if kept is not None:
            self._note(name, key, is_shared=is_shared)
            return kept, True
        result = compute()
        self._cache.keep(key, result, workspace)
        self._note(name, key, is_shared=is_shared)
        return result, False

    def forget(self) -> None:
        """Drop what belongs to this job alone: it has ended, and when it runs again it measures again."""
        for key in self._own:
            self._cache.forget(key)
        if self._lock is not None:
            self._path.unlink(missing_ok=True)

    def _note(self, name: str, key: str, *, is_shared: bool) -> None:
        if self._lock is None or self._lines.get(name) == key:
            return
        self._lines[name] = key
        if not is_shared:
            self._own.add(key)
        self._lock.write(json.dumps([name, key, is_shared]) + "\n")
        self._lock.flush()

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            try:
                name, key, is_shared = json.loads(line)
            except (ValueError, TypeError):  # cut off by a kill, or damaged
                continue
            self._lines[str(name)] = str(key)
            if not is_shared:
                self._own.add(str(key))

    def _locked(self) -> TextIO | None:
        try:
            self._path.parent.mkdir(exist_ok=True)
            for stale in self._path.parent.iterdir():
                if time.time() - stale.stat().st_mtime > _KEPT_SECONDS:
                    remove_tree(stale)
            stream = self._path.open("a", encoding="utf-8")
        except OSError as exc:
            logger.warning("the job is not recorded, and cannot go on should it be interrupted: %s", exc)
            return None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            logger.info("another run works on the same job: this one is not recorded")
            return None
        return stream
