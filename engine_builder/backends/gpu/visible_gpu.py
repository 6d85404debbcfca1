"""Which GPU a stage will open, asked of the driver itself: the first that CUDA shows.

CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER and MIG decide which that is; nvidia-smi knows nothing of them. The question is asked in a
process of its own, since a process that has started CUDA cannot be forked, and a driver that hangs is ended. That process runs this file
by its path, so it imports nothing but the standard library. No context is made on the GPU. Not yet run on a GPU.
"""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"
_SECONDS = 60.0  # the driver starts all GPUs of a machine, one after the other, where none is in use
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class VisibleGpu:
    """A GPU as the driver describes it; of a divided one (MIG) the instance."""

    name: str  # NVIDIA L4
    uuid: str  # as uuid.UUID writes it
    compute_capability: tuple[int, int]


def first_visible_gpu(driver: str = DRIVER) -> VisibleGpu | None:
    """Return the GPU that a process with this environment opens; None where there is no driver or no GPU, or it does not answer.

    Args:
        driver: The driver's library.
    """
    try:
        ctypes.CDLL(driver)
    except OSError:
        return None
    command = [sys.executable, "-I", str(Path(__file__).resolve()), driver]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode != 0:
            logger.warning("no GPU: %s", done.stderr.strip()[-300:])
            return None
        found = json.loads(done.stdout)
        major, minor = found["compute_capability"]
        return VisibleGpu(str(found["name"]), str(found["uuid"]), (int(major), int(minor)))
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as exc:
        logger.warning("no GPU: the driver does not answer: %s", exc)
        return None


def driver_uuid(device: int, driver: str = DRIVER) -> str:
    """Return the UUID of a device in a process that has started CUDA.

    Args:
        device: The driver's handle of it.
        driver: Its library.

    Raises:
        OSError: There is no driver, or it fails.
    """
    library = ctypes.CDLL(driver)
    raw = (ctypes.c_ubyte * 16)()
    ask = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid  # the newer one knows MIG's instances
    _check("cuDeviceGetUuid", ask(raw, device))
    return str(uuid.UUID(bytes=bytes(raw)))


def device_at(pci_bus_id: str, driver: str = DRIVER) -> int:
    """Return the driver's handle of the device at a place, in a process that has started CUDA.

    Args:
        pci_bus_id: Such as 0000:65:00.0.
        driver: The driver's library.

    Raises:
        OSError: There is no driver, or no such device that CUDA shows.
    """
    device = ctypes.c_int()
    _check("cuDeviceGetByPCIBusId", ctypes.CDLL(driver).cuDeviceGetByPCIBusId(ctypes.byref(device), pci_bus_id.encode()))
    return device.value


def _described(driver: str) -> dict[str, object]:
    library = ctypes.CDLL(driver)
    _check("cuInit", library.cuInit(0))
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    _check("cuDeviceGet", library.cuDeviceGet(ctypes.byref(device), 0))
    _check("cuDeviceGetName", library.cuDeviceGetName(name, _NAME_BYTES, device.value))
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _check("cuDeviceGetAttribute", library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device.value))
        capability.append(value.value)
    return {
        "name": name.value.decode(errors="replace"),
        "uuid": driver_uuid(device.value, driver),
        "compute_capability": capability,
    }


def _check(name: str, status: int) -> None:
    if status != 0:
        raise OSError(f"{name} failed with CUDA error {status}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_described(sys.argv[1])))
