"""The driver is asked which GPU a stage opens, in a process of its own; a stub driver with two GPUs answers."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from engine_builder.backends.gpu.visible_gpu import VisibleGpu, first_visible_gpu
from tests.engine_builder.stub_driver import COMPILER, NO_COMPILER, build_driver

FIRST = VisibleGpu("NVIDIA Stub 1", str(uuid.UUID(bytes=bytes([7] * 16))), (8, 9))
SECOND = VisibleGpu("NVIDIA Stub 2", str(uuid.UUID(bytes=bytes([8] * 16))), (8, 9))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    return str(build_driver(tmp_path_factory.mktemp("driver")) / "libcuda.so.1")


@pytest.mark.parametrize(("visible", "found"), [(None, FIRST), ("0", FIRST), ("1", SECOND), ("1,0", SECOND)])
def test_the_gpu_is_the_one_that_cuda_shows_first(
    driver: str, monkeypatch: pytest.MonkeyPatch, visible: str | None, found: VisibleGpu
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert first_visible_gpu(driver) == found


def test_the_driver_is_started_in_another_process_and_no_context_is_made(
    driver: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "calls.txt"
    monkeypatch.setenv("STUB_DRIVER_LOG", str(log))
    assert first_visible_gpu(driver) is not None
    assert log.read_text().split() == ["cuInit"]


def test_without_a_driver_or_with_one_that_does_not_start_there_is_no_gpu(
    driver: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert first_visible_gpu("libno-such-driver.so.1") is None
    assert caplog.text == ""  # most machines have none
    monkeypatch.setenv("STUB_DRIVER_FAIL", "cuInit")
    assert first_visible_gpu(driver) is None
    assert "cuInit failed with CUDA error 901" in caplog.text
