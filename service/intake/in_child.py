"""Has an upload read by a child process with limits of its own, so that no upload can take the server's memory or time.

What the child does not survive is the upload's fault: the caller is told so, and the server goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from calibration.codec import as_object
from calibration.errors import InvalidModelError
from engine_builder.errors import StageCancelledError, StageError, StageMemoryError, StageTimeoutError
from engine_builder.workspace.workspace import FileRef
from service.errors import ServiceError, StoppingError, TooLargeError
from service.intake.stages import PREFLIGHT, READ_CONFIG, UNPACK
from service.settings import Settings
from service.worker.child_process import StageLimits

STAGES_OF_INTAKE = "service.intake.stages"
MEMORY_BYTES = 2 * 2**30  # of addresses, most of them the parent's libraries; reading takes some tens of MiB
CONFIG_BYTES_READ_AT_ONCE = 2**16  # a larger configuration is read in a child
_CONFIG_NAME, _CONFIG_SECONDS = "config.json", 20.0


class RunStage(Protocol):
    """Runs one stage in a child process; see ``service.worker.child_process.run_in_child``."""

    def __call__(
        self,
        stage: str,
        request: Mapping[str, object],
        workspace: Path,
        *,
        limits: StageLimits,
        on_progress: Callable[[float, str], None],
        should_cancel: Callable[[], bool],
        stages: str,
    ) -> dict[str, object]:
        """Return the stage's result."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads uploads in children."""

    settings: Settings
    run: RunStage
    should_cancel: Callable[[], bool]

    def unpack(self, archive: Path, folder: Path, workspace: Path) -> FileRef:
        """Unpack an archive of a model and return the model.

        Args:
            archive: In the workspace.
            folder: In the workspace, not there yet. On an error it is not there either.
            workspace: A job's folder.

        Raises:
            InputError: The archive is broken, unsafe or too large, or holds no model or several.
            InsufficientStorageError: The disk has no room.
        """
        request = {
            "archive": archive.relative_to(workspace).as_posix(),
            "folder": folder.relative_to(workspace).as_posix(),
            "max_bytes": self.settings.max_upload_bytes,
            "reserve_bytes": self.settings.min_free_bytes,
        }
        found = self._run(UNPACK, request, workspace, "archive", self.settings.unpack_seconds)
        return FileRef(str(found["file"]), str(found["sha256"]))

    def read_config(self, text: str, workspace: Path, *, key: str | None = None) -> dict[str, object]:
        """Return a long configuration, with every default filled in.

        Args:
            text: JSON.
            workspace: An empty folder, for the text.
            key: The text is the value of this key, and of no other.

        Raises:
            InputError: It is none, or takes too much to read.
        """
        (workspace / _CONFIG_NAME).write_text(text, encoding="utf-8")
        return as_object(self._run(READ_CONFIG, {"text": _CONFIG_NAME, "key": key}, workspace, "config", _CONFIG_SECONDS)["config"])

    def preflight(self, model: FileRef, samples: int, workspace: Path) -> dict[str, object]:
        """Return what is known of a model before a job; see ``service.intake.stages.preflight``.

        Args:
            model: In the workspace.
            samples: That engines would be scored on.
            workspace: Of no job; the child writes into it.

        Raises:
            InputError: It cannot be read or has no layers, or that took too much.
            StoppingError: The server is stopping.
        """
        request = {"model": model.file, "samples": samples}
        memory = self.settings.stage_memory_bytes
        return dict(self._run(PREFLIGHT, request, workspace, "model", self.settings.unpack_seconds, memory_bytes=memory))

    def _run(
        self, stage: str, request: Mapping[str, object], workspace: Path, what: str, seconds: float, *, memory_bytes: int = MEMORY_BYTES
    ) -> Mapping[str, object]:
        limits = StageLimits(
            memory_bytes=min(memory_bytes, self.settings.stage_memory_bytes),
            seconds=seconds,
            cpu_seconds=int(seconds) + 1,
            file_bytes=self.settings.max_upload_bytes + _ROOM_BYTES,
        )
        try:
            return self.run(
                stage,
                request,
                workspace,
                limits=limits,
                on_progress=_ignore,
                should_cancel=self.should_cancel,
                stages=STAGES_OF_INTAKE,
            )
        except StageCancelledError as exc:  # nothing else ends it from here
            raise StoppingError("the server is stopping, and ended what it did for this request", fix="Send it again in a minute.") from exc
        except StageError as exc:
            raise _as_fault_of_upload(exc, what, stage, seconds) from exc


def _as_fault_of_upload(error: StageError, what: str, stage: str, seconds: float) -> ServiceError | InvalidModelError:
    if stage == PREFLIGHT and isinstance(error, StageTimeoutError):
        return TooLargeError(
            f"{what}: looking it through before a job took more than {seconds:g} seconds, the limit of this server",
            fix="Submit a job: its stages have more time.",
        )
    if stage == PREFLIGHT and isinstance(error, StageMemoryError):
        return TooLargeError(
            f"{what}: looking it through before a job needed more memory than this server gives, and so would a job's stages",
            fix="Make the model smaller, or ask the operator for a larger ONNX_TRT_OPTIMIZER_STAGE_MEMORY_BYTES.",
        )
    if isinstance(error, StageTimeoutError):
        return TooLargeError(f"{what}: reading it took more than {seconds:g} seconds, the limit of this server", fix="Send a smaller one.")
    if isinstance(error, StageMemoryError):
        return TooLargeError(f"{what}: reading it needed more memory than this server gives", fix="Send a plain one.")
    return InvalidModelError(f"{what}: it cannot be read: the process that read it ended early", fix="Write it again with another program.")


def _ignore(fraction: float, message: str) -> None:
    """Nobody watches."""


_ROOM_BYTES = 2**20  # for the child's own files
