"""Says in one line what GPU, driver and versions the container found, or what is missing, then becomes the server.

A missing GPU never stops the server: the targets that need none still work, and /v1/targets lists those. Only the standard library is
used, so that the line appears whatever is broken.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OLDEST_DRIVER = 580  # the first that runs CUDA 13
KERNEL_MODULE = Path("/proc/driver/nvidia/version")  # visible inside a container too, toolkit or not
PACKAGES = ("onnx-trt-optimizer", "onnxruntime", "tensorrt-cu13", "tensorrt-rtx-cu13", "cuda-core", "pycuda", "nvidia-ml-py")
GPU_PACKAGES = frozenset({"tensorrt-cu13", "tensorrt-rtx-cu13"})
TOOLKIT = "install the NVIDIA container toolkit on the host and start the container with --gpus all (compose.yaml asks for one GPU)"
HEALTH_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Cuda:
    """What the driver's own library says: the CUDA version it supports, its devices, and the error where it does not start."""

    version: str | None
    devices: tuple[str, ...]  # "NAME (compute capability X.Y, N GiB)"
    error: str | None  # the name of the CUDA error


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found: nothing in it is guessed."""

    driver: str | None  # of the kernel module, such as "580.65.06"
    cuda: Cuda | None  # None: the container has no libcuda.so.1
    versions: Mapping[str, str]  # of the installed packages among PACKAGES


def main(arguments: Sequence[str]) -> int:
    """Print the line and replace this process with the server; with ``--check-health`` ask the running server instead."""
    if list(arguments) == ["--check-health"]:
        return 0 if is_healthy(os.environ.get("ONNX_TRT_OPTIMIZER_PORT") or "8000") else 1
    sys.stderr.write(line(look()) + "\n")
    sys.stderr.flush()
    # -P: the data folder, in which this runs, is no place to import from.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "service", *(arguments or ("serve",))])


def line(machine: Machine) -> str:
    """Return what was found, or what is missing and how to get it, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{_gpu(machine)}; {versions or 'none of the packages is installed'}"


def look() -> Machine:
    """Return what this container has."""
    try:
        text: str | None = KERNEL_MODULE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = None
    return Machine(driver_version(text), _cuda(), _versions())


def driver_version(text: str | None) -> str | None:
    """Return the driver's version from the text of /proc/driver/nvidia/version; None where there is none."""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text or "")
    return found.group(1) if found else None


def is_healthy(port: str) -> bool:
    """Whether the server of this container answers /healthz with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=HEALTH_SECONDS) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _gpu(machine: Machine) -> str:
    if not GPU_PACKAGES & machine.versions.keys():
        return "this image builds for the CPU only; for TensorRT use the target `gpu` of docker/Dockerfile, for TensorRT-RTX `rtx`"
    if machine.driver is None and machine.cuda is None and "tensorrt-cu13" not in machine.versions:
        return "no GPU: plans of TensorRT-RTX are built ahead of time, and their latency is predicted"
    if machine.driver is None and machine.cuda is None:
        return f"no GPU: the host has no NVIDIA driver loaded; install driver r{OLDEST_DRIVER} or newer there, and {TOOLKIT}"
    if machine.driver is not None and int(machine.driver.split(".")[0]) < OLDEST_DRIVER:
        return f"no usable GPU: driver {machine.driver} is too old for CUDA 13; install r{OLDEST_DRIVER} or newer on the host"
    if machine.cuda is None:
        return f"no GPU: the host's driver {machine.driver} is not visible in the container; {TOOLKIT}"
    driver = f"driver {machine.driver or 'unknown'}"
    if machine.cuda.error is not None:
        return f"no usable GPU: {driver}, but CUDA does not start ({machine.cuda.error}); check `nvidia-smi` on the host, and {TOOLKIT}"
    if not machine.cuda.devices:
        return f"no GPU: {driver}, but no device is given to the container; {TOOLKIT}"
    return f"GPU {', '.join(machine.cuda.devices)}; {driver}, CUDA {machine.cuda.version}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cuda(library: str = "libcuda.so.1") -> Cuda | None:
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    status = driver.cuInit(0)
    if status:
        return Cuda(None, (), _error_name(driver, status))
    number = ctypes.c_int()
    version = None
    if driver.cuDriverGetVersion(ctypes.byref(number)) == 0:
        version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    status = driver.cuDeviceGetCount(ctypes.byref(number))
    if status:
        return Cuda(version, (), _error_name(driver, status))
    return Cuda(version, tuple(_device(driver, index) for index in range(number.value)), None)


def _device(driver: ctypes.CDLL, index: int) -> str:
    device, number, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    status = driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetName(name, len(name), device)
    if status:
        return f"number {index}, which does not answer ({_error_name(driver, status)})"
    parts = []
    for attribute in (_MAJOR, _MINOR):
        status = driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        parts.append("?" if status else str(number.value))
    status = driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    memory = "memory unknown" if status else f"{total.value / 2**30:.0f} GiB"
    return f"{name.value.decode(errors='replace')} (compute capability {'.'.join(parts)}, {memory})"


def _error_name(driver: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    if driver.cuGetErrorName(status, ctypes.byref(text)) == 0 and text.value:
        return text.value.decode()
    return f"CUDA error {status}"


_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
