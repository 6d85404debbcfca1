"""What the branches of one job measure once: a stage whose request is the same for two types of GPU runs for the first of them alone.

The results lie in the folder of the job, which all processes see, by the content of the requests, as in ``worker.stage_cache``. Who runs a
stage leaves a claim: a file with the id of its branch. Another branch that comes to the same stage waits for the result, as long as some
process is at work on the branch that claims it. If that process dies, or the branch ends without a result, the one that waits runs the
stage itself; so nobody waits for what is not being done.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from engine_builder.errors import StageCancelledError
from engine_builder.workspace.workspace import Workspace
from service.worker.stage_cache import StageCache


class SharedStages:
    """The shared results of one job, as one of its branches sees them. Not thread-safe."""

    def __init__(self, folder: Path, version: str, stages: Collection[str], branch: str, is_run: Callable[[str], bool]) -> None:
        """Open the folder, which is created where it is missing.

        Args:
            folder: Of the job.
            version: Of the sequence of stages.
            stages: Names of those whose results may be shared.
            branch: Id of the branch that asks.
            is_run: Whether a process is at work on a branch, given its id.

        Raises:
            OSError: It cannot be created.
        """
        self._kept = StageCache(folder / FOLDER, version, stages, max_bytes=_ANY_SIZE)
        self._branch = branch
        self._is_run = is_run

    def run(
        self,
        stage: str,
        request: Mapping[str, object],
        workspace: Workspace,
        compute: Callable[[], Mapping[str, object]],
        should_end: Callable[[], bool],
    ) -> Mapping[str, object]:
        """Return what another branch found, its files linked into the workspace, or compute and share it.

        Args:
            stage: Its name.
            request: What it reads.
            workspace: Of the branch.
            compute: Runs the stage.
            should_end: Asked while another branch is waited for.

        Raises:
            StageCancelledError: ``should_end`` said so.
        """
        if not self._kept.keeps(stage):
            return compute()
        key = self._kept.key(stage, request, workspace)
        claim = self._kept.root / f"{key}{_CLAIM_SUFFIX}"
        while True:
            if self._kept.has(key) and (found := self._kept.find(key, workspace)) is not None:
                return found
            if self._claims(claim):
                break
            if should_end():
                raise StageCancelledError(f"stage {stage} was cancelled", fix="Submit the job again if it was not meant to be cancelled.")
            time.sleep(_ASK_SECONDS)
        try:
            result = compute()
            self._kept.keep(key, result, workspace)
            return result
        finally:
            claim.unlink(missing_ok=True)

    def _claims(self, claim: Path) -> bool:
        """Whether this branch is to run the stage: nobody else is at it."""
        try:
            with claim.open("x") as file:
                file.write(self._branch)
            return True
        except FileExistsError:
            pass
        with contextlib.suppress(FileNotFoundError):
            holder = claim.read_text()
            if holder == self._branch:  # a run of this branch that was ended
                return True
            if holder and self._is_run(holder):
                return False
            if not holder and time.time() - claim.stat().st_mtime < _WRITING_SECONDS:
                return False
            mine = claim.with_name(f".{secrets.token_hex(8)}")
            mine.write_text(self._branch)
            os.replace(mine, claim)
            return True
        return False  # it was given back just now: look again


FOLDER = "shared-stages"
_CLAIM_SUFFIX = ".claim"
_ASK_SECONDS = 0.5
_WRITING_SECONDS = 10.0  # a claim without a name after that is of a process that was killed as it wrote
_ANY_SIZE = 2**62
