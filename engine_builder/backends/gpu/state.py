"""What the GPU is doing while engines are timed: clocks, throttling, other processes, MIG.

Read from the driver's management library (package ``nvidia-ml-py``) where that is installed, else from ``nvidia-smi``, which ships with the
driver. Not yet run on a GPU. Process ids are those of the host: inside a container with its own process ids, this process may count itself
among the others.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from engine_builder.errors import EngineError

logger = logging.getLogger(__name__)

# Bits of the driver's "clocks event reasons"; the first two say that the GPU may go no faster, not that something holds it back.
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
HARMLESS = frozenset({"idle", "application clocks"})

DRIVER_MODULE = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"\bKernel Module\b.*?\s(\d+(?:\.\d+)+)\b")


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What does not change during a run; None where the driver does not say, as to a container without permission."""

    uuid: str | None
    name: str | None
    driver: str | None  # its version
    mig: bool | None  # the GPU is divided: other instances share its memory bandwidth and clocks
    max_sm_clock_mhz: int | None


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One reading; None where the driver does not say."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    held_back_by: tuple[str, ...] | None  # reasons why the clock is lower than it could be; empty when all is well
    other_processes: tuple[int, ...] | None  # ids of processes with a context on this GPU, ours left out


class GpuMonitor(Protocol):
    """Reads the state of one GPU."""

    @property
    def is_cheap(self) -> bool:
        """Whether a reading takes next to nothing, so that it may go on beside timed runs."""

    def info(self) -> GpuInfo:
        """Return what does not change."""

    def sample(self) -> GpuSample:
        """Return what does."""


class NvmlMonitor:
    """Through the management library: under a millisecond a reading. Each question that it does not answer is left open."""

    is_cheap = True

    def __init__(self, pci_bus_id: str, library: object | None = None) -> None:
        """Open the library.

        Args:
            pci_bus_id: Which GPU.
            library: Stands in for the package ``pynvml``.

        Raises:
            ImportError: nvidia-ml-py is not installed.
            EngineError: The driver does not answer.
        """
        package = library if library is not None else importlib.import_module("pynvml")
        self._nvml = cast(Any, package)  # it publishes no types
        try:
            self._nvml.nvmlInit()
            self._gpu = self._nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
        except self._nvml.NVMLError as exc:
            raise EngineError(f"NVML does not know the GPU at {pci_bus_id}: {exc}", fix="check the driver with nvidia-smi") from exc

    def info(self) -> GpuInfo:
        """Return what does not change."""
        mig = self._ask(lambda: self._nvml.nvmlDeviceGetMigMode(self._gpu)[0])
        clock = self._ask(lambda: self._nvml.nvmlDeviceGetMaxClockInfo(self._gpu, self._nvml.NVML_CLOCK_SM))
        return GpuInfo(
            self._word(lambda: self._nvml.nvmlDeviceGetUUID(self._gpu)),
            self._word(lambda: self._nvml.nvmlDeviceGetName(self._gpu)),
            self._word(self._nvml.nvmlSystemGetDriverVersion),
            None if mig is None else mig == 1,
            clock,
        )

    def sample(self) -> GpuSample:
        """Return one reading."""
        nvml, gpu = self._nvml, self._gpu
        power_mw = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
        return GpuSample(
            sm_clock_mhz=self._ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=self._ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
            temperature_c=self._ask(lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            power_w=None if power_mw is None else power_mw / 1000,
            held_back_by=None if reasons is None else reasons_from_bits(reasons),
            other_processes=self._processes(),
        )

    def _ask(self, question: Callable[[], int]) -> int | None:
        try:
            return int(question())
        except self._nvml.NVMLError:  # not supported, no permission (MIG, an unprivileged container), ...
            return None

    def _word(self, question: Callable[[], object]) -> str | None:
        try:
            return str(question())
        except self._nvml.NVMLError:
            return None

    def _processes(self) -> tuple[int, ...] | None:
        try:
            return _others(process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._gpu))
        except self._nvml.NVMLError:
            return None


class SmiMonitor:
    """Through nvidia-smi: two processes and tens of milliseconds a reading."""

    is_cheap = False

    def __init__(self, pci_bus_id: str, run: Callable[[Sequence[str]], str] | None = None) -> None:
        """Watch the GPU at this place; ``run`` stands in for starting a program and returning what it printed."""
        self._id = pci_bus_id
        self._run = run or _printed

    def info(self) -> GpuInfo:
        """Return what does not change."""
        uuid, name, driver, mig, clock = self._query("uuid,name,driver_version,mig.mode.current,clocks.max.sm")
        return GpuInfo(uuid, name, driver, None if _is_unknown(mig) else mig == "Enabled", _integer(clock))

    def sample(self) -> GpuSample:
        """Return one reading."""
        fields = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active"
        clock, memory, temperature, power, reasons = self._query(fields)
        processes = self._run(("nvidia-smi", f"--id={self._id}", "--query-compute-apps=pid", "--format=csv,noheader"))
        return GpuSample(
            sm_clock_mhz=_integer(clock),
            memory_clock_mhz=_integer(memory),
            temperature_c=_integer(temperature),
            power_w=None if _is_unknown(power) else float(power),
            held_back_by=None if _is_unknown(reasons) else reasons_from_bits(int(reasons, 16)),
            other_processes=_others(int(line) for line in processes.split() if line.isdigit()),
        )

    def _query(self, fields: str) -> list[str]:
        printed = self._run(("nvidia-smi", f"--id={self._id}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"))
        found = [field.strip() for field in printed.strip().split(",")]
        if len(found) != fields.count(",") + 1:
            raise EngineError(
                f"nvidia-smi printed {printed!r}, expected {fields}",
                fix="install a driver of branch 535 or newer, or pip install nvidia-ml-py",
            )
        return found


def open_gpu_monitor(pci_bus_id: str) -> GpuMonitor | None:
    """Return a monitor of the GPU at this place; None where neither nvidia-ml-py nor nvidia-smi is installed, or the first is refused."""
    try:
        return NvmlMonitor(pci_bus_id)
    except EngineError as error:
        logger.warning("the state of the GPU is not known: %s", error.detail)
        return None
    except ImportError:
        return SmiMonitor(pci_bus_id) if shutil.which("nvidia-smi") else None


def driver_version(module: Path = DRIVER_MODULE) -> str | None:
    """Return the version of the driver's kernel module, which every user and container may read; None where it does not say.

    Args:
        module: Where it describes itself.
    """
    try:
        found = _VERSION.search(module.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return None if found is None else found[1]


def reasons_from_bits(bits: int) -> tuple[str, ...]:
    """Return the reasons that hold a clock back, from the driver's bit mask; a bit of a newer driver is given as its number."""
    set_bits = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(reason for reason in (REASONS.get(bit, f"reason {bit:#x}") for bit in set_bits) if reason not in HARMLESS)


def _others(processes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(processes) - {os.getpid()}))


def _integer(text: str) -> int | None:
    return None if _is_unknown(text) else int(text)


def _is_unknown(text: str) -> bool:
    return text.startswith("[") or text == "N/A"  # [N/A], [Not Supported], ...


def _printed(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise EngineError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stdout.strip()}", fix="check the driver with nvidia-smi"
        )
    return done.stdout
