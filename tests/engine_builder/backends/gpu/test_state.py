"""The GPU's state is read alike from the management library and from nvidia-smi."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine_builder.backends.gpu.state import (
    GpuInfo,
    GpuMonitor,
    GpuSample,
    NvmlMonitor,
    SmiMonitor,
    driver_version,
    open_gpu_monitor,
    reasons_from_bits,
)
from engine_builder.errors import EngineError

PLACE = "0000:65:00.0"
OTHER = 4242


class NotSupportedError(Exception):
    pass


def unsupported(*arguments: object) -> int:
    raise NotSupportedError


def nvml(**changed: object) -> SimpleNamespace:
    def handle(place: str) -> str:
        if place != PLACE:
            raise NotSupportedError(f"no GPU at {place}")
        return "handle"

    answers: dict[str, object] = {
        "NVMLError": NotSupportedError,
        "NVMLError_NotSupported": NotSupportedError,
        "NVML_CLOCK_SM": "sm",
        "NVML_CLOCK_MEM": "memory",
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByPciBusId": handle,
        "nvmlDeviceGetMigMode": lambda gpu: [1, 1],
        "nvmlDeviceGetMaxClockInfo": lambda gpu, kind: 2040,
        "nvmlDeviceGetName": lambda gpu: "NVIDIA L4",
        "nvmlDeviceGetUUID": lambda gpu: "GPU-1",
        "nvmlSystemGetDriverVersion": lambda: "580.65",
        "nvmlDeviceGetPowerUsage": lambda gpu: 71_500,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: 0x4,
        "nvmlDeviceGetClockInfo": lambda gpu, kind: {"sm": 1500, "memory": 6251}[kind],
        "nvmlDeviceGetTemperature": lambda gpu, kind: 61,
        "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [SimpleNamespace(pid=OTHER), SimpleNamespace(pid=os.getpid())],
    }
    return SimpleNamespace(**{**answers, **changed})


def smi(gpu: str = "GPU-1, NVIDIA L4, 580.65, Enabled, 2040", state: str = "1500, 6251, 61, 71.50, 0x0000000000000004") -> SmiMonitor:
    def run(command: Sequence[str]) -> str:
        assert command[:2] == ("nvidia-smi", f"--id={PLACE}")
        if "--query-compute-apps=pid" in command:
            return f"{OTHER}\n{os.getpid()}\n"
        return f"{gpu if 'uuid' in command[2] else state}\n"

    return SmiMonitor(PLACE, run)


class GpuMonitorContract(ABC):
    """What is told of the one GPU of these tests, whichever source it is read from."""

    @abstractmethod
    def monitor(self) -> GpuMonitor:
        """Return a monitor of a GPU that reports everything."""

    @abstractmethod
    def silent(self) -> GpuMonitor:
        """Return a monitor of a GPU that reports neither temperature, power nor MIG."""

    def test_what_does_not_change_is_told(self) -> None:
        monitor = self.monitor()
        assert monitor.info() == monitor.info() == GpuInfo("GPU-1", "NVIDIA L4", "580.65", mig=True, max_sm_clock_mhz=2040)

    def test_one_reading_leaves_our_own_process_out(self) -> None:
        assert self.monitor().sample() == GpuSample(1500, 6251, 61, 71.5, ("power cap",), (OTHER,))

    def test_what_the_gpu_does_not_report_is_none(self) -> None:
        assert self.silent().info() == GpuInfo("GPU-1", "NVIDIA L4", "580.65", mig=None, max_sm_clock_mhz=2040)
        assert self.silent().sample() == GpuSample(1500, 6251, None, None, None, (OTHER,))


class TestNvmlMonitor(GpuMonitorContract):
    def monitor(self) -> GpuMonitor:
        return NvmlMonitor(PLACE, nvml())

    def silent(self) -> GpuMonitor:
        names = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetMigMode", "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons")
        return NvmlMonitor(PLACE, nvml(**dict.fromkeys(names, unsupported)))


class TestSmiMonitor(GpuMonitorContract):
    def monitor(self) -> GpuMonitor:
        return smi()

    def silent(self) -> GpuMonitor:
        return smi("GPU-1, NVIDIA L4, 580.65, [N/A], 2040", "1500, 6251, [N/A], [Not Supported], [N/A]")


def test_unknown_gpu_is_an_engine_error_that_names_its_place() -> None:
    with pytest.raises(EngineError, match=r"NVML does not know the GPU at 0000:99:00\.0"):
        NvmlMonitor("0000:99:00.0", nvml())


def test_unexpected_words_of_nvidia_smi_are_shown() -> None:
    with pytest.raises(EngineError, match=r"Field .* is not a valid field"):
        smi(state='Field "clocks_event_reasons.active" is not a valid field to query.').sample()


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0, ()),
        (0x1, ()),
        (0x3, ()),
        (0x48, ("hardware slowdown", "thermal slowdown (hardware)")),
        (0x10004, ("power cap", "reason 0x10000")),
    ],
)
def test_only_reasons_that_slow_the_gpu_down_count(bits: int, reasons: tuple[str, ...]) -> None:
    assert reasons_from_bits(bits) == reasons


def test_nvml_without_permission_leaves_everything_open() -> None:
    """As in a container without privileges, or on an instance of a divided GPU."""
    names = [name for name in vars(nvml()) if name.startswith(("nvmlDeviceGet", "nvmlSystem")) and name != "nvmlDeviceGetHandleByPciBusId"]
    monitor = NvmlMonitor(PLACE, nvml(NVMLError_NotSupported=KeyError, **dict.fromkeys(names, unsupported)))
    assert monitor.info() == GpuInfo(None, None, None, None, None)
    assert monitor.sample() == GpuSample(None, None, None, None, None, None)


def test_a_gpu_that_nvml_does_not_show_is_not_watched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert isinstance(open_gpu_monitor(PLACE), NvmlMonitor)
    assert open_gpu_monitor("0000:99:00.0") is None
    assert "NVML does not know the GPU at 0000:99:00.0" in caplog.text


def test_only_readings_through_nvml_are_cheap() -> None:
    assert NvmlMonitor(PLACE, nvml()).is_cheap
    assert not smi().is_cheap


def test_the_names_of_nvml_exist() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert [name for name in vars(nvml()) if not hasattr(pynvml, name)] == []


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:  gcc 12.2.0\n",
            "535.183.01",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root)\nGCC version: 13.3.0\n", "580.95.05"),
        ("nothing of the kind 1.2\n", None),
    ],
)
def test_the_driver_is_told_by_its_kernel_module(text: str, version: str | None, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == version
    assert driver_version(tmp_path / "none") is None
