"""An upload is read in a child, and what that does not survive is an answer to the caller."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from calibration.errors import InputError, InvalidConfigError, InvalidModelError
from engine_builder.errors import EngineError, StageCrashedError
from engine_builder.workspace.workspace import FileRef
from service.errors import InsufficientStorageError, StoppingError, TooLargeError
from service.intake.in_child import Intake
from service.settings import Settings
from service.worker.child_process import StageLimits, run_in_child
from tests.service.intake.test_unpacking import tar_of, zip_of

MISBEHAVING = "tests.service.intake.misbehaving"
LIMITS = StageLimits(memory_bytes=2 * 2**30, seconds=30)


def intake(**settings: object) -> Intake:
    return Intake(dataclasses.replace(Settings(), **settings), run_in_child, lambda: False)  # type: ignore[arg-type]  # each of its type


def unpack(data: bytes, workspace: Path, **settings: object) -> Path:
    (workspace / "archive").write_bytes(data)
    found = intake(**settings).unpack(workspace / "archive", workspace / "inputs" / "unpacked", workspace)
    return workspace / found.file


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_model_is_unpacked(pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path) -> None:
    assert unpack(pack({"net/model.onnx": b"model"}), tmp_path).read_bytes() == b"model"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "inputs", "log.txt"]


def bomb(method: int) -> bytes:
    """Return a .zip that says that it holds 1000 bytes, and holds 32 MiB of zeros."""
    archive = bytearray(zip_of({"model.onnx": bytes(32 * 2**20)}, compression=method))
    for at in (archive.index(b"PK\x01\x02") + 24, 22):  # where its size stands
        archive[at : at + 4] = (1000).to_bytes(4, "little")
    return bytes(archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bomb_that_lies_is_stopped_at_its_word(method: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="more than the 1000 bytes that it says"):
        unpack(bomb(method), tmp_path)
    assert not (tmp_path / "inputs" / "unpacked").exists()


def test_disk_without_room_is_said_with_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(InsufficientStorageError, match=r"bytes are free, 5 more are needed") as caught:
        unpack(zip_of({"model.onnx": b"model"}), tmp_path, min_free_bytes=2**60)
    assert caught.value.status == 507
    assert not (tmp_path / "inputs" / "unpacked").exists()


def test_long_config_is_read(tmp_path: Path) -> None:
    assert intake().read_config('{"batch_size": 3}' + " " * 2**17, tmp_path)["batch_size"] == 3


@pytest.mark.parametrize("text", ["[" * 2**17, '{"a": 1,' + " " * 2**17, '{"no_such_key": 1}' + " " * 2**17])
def test_long_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError):
        intake().read_config(text, tmp_path)


@dataclasses.dataclass(frozen=True)
class Misbehaving:
    """Runs a stage that misbehaves in the place of the one that is expected."""

    misbehaviour: str
    expected: str

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
        assert (stage, stages) == (self.expected, "service.intake.stages")
        return run_misbehaving(self.misbehaviour, request, workspace, limits)


@pytest.mark.parametrize(
    ("misbehaviour", "error", "words"),
    [
        ("spin", TooLargeError, "took more than 1 seconds"),
        ("allocate", TooLargeError, "more memory than this server gives"),
        ("crash", InvalidModelError, "ended early"),
    ],
)
def test_what_ends_the_child_is_the_uploads_fault(misbehaviour: str, error: type[InputError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        Intake(Settings(unpack_seconds=1.0 if misbehaviour == "spin" else 30.0), Misbehaving(misbehaviour, "unpack"), lambda: False).unpack(
            tmp_path / "archive", tmp_path / "folder", tmp_path
        )


@pytest.mark.parametrize(
    ("misbehaviour", "words", "fix"),
    [("spin", "more than 1 seconds", "Submit a job"), ("allocate", "and so would a job's stages", "ONNX_TRT_OPTIMIZER_STAGE_MEMORY_BYTES")],
)
def test_a_model_that_takes_too_much_before_a_job_is_told_what_a_job_would_do(
    misbehaviour: str, words: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(TooLargeError, match=words) as caught:
        Intake(
            Settings(unpack_seconds=1.0 if misbehaviour == "spin" else 30.0), Misbehaving(misbehaviour, "preflight"), lambda: False
        ).preflight(FileRef("model.onnx", "0" * 64), 1, tmp_path)
    assert fix in caught.value.fix


def test_a_server_that_stops_says_so_to_whoever_waits_for_a_child(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zip_of({"model.onnx": b"model"}))
    stopping = Intake(Settings(), run_in_child, lambda: True)
    with pytest.raises(StoppingError) as caught:
        stopping.unpack(tmp_path / "archive", tmp_path / "folder", tmp_path)
    assert (caught.value.status, caught.value.fix) == (503, "Send it again in a minute.")


def run_misbehaving(stage: str, request: Mapping[str, object], workspace: Path, limits: StageLimits) -> dict[str, object]:
    run = partial(run_in_child, on_progress=lambda fraction, message: None, should_cancel=lambda: False, stages=MISBEHAVING)
    return run(stage, request, workspace, limits=limits)


def test_processor_time_is_limited(tmp_path: Path) -> None:
    with pytest.raises(StageCrashedError, match=r"SIGXCPU|SIGKILL"):
        run_misbehaving("spin", {}, tmp_path, dataclasses.replace(LIMITS, cpu_seconds=1))


def test_files_that_are_written_are_limited(tmp_path: Path) -> None:
    limits = dataclasses.replace(LIMITS, file_bytes=2**20)
    assert run_misbehaving("write", {"bytes": 2**20}, tmp_path, limits) == {"written": True}
    with pytest.raises(EngineError, match="File too large"):
        run_misbehaving("write", {"bytes": 2**20 + 1}, tmp_path, limits)
