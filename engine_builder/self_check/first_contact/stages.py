"""The first steps on a GPU, as stages that run in child processes; they load neither onnx nor TensorRT. Not yet run on a GPU."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from engine_builder.backends.gpu import visible_gpu
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime
from engine_builder.backends.gpu.devices import ADAPTERS, open_cuda
from engine_builder.backends.gpu.lock import FOLDER_VARIABLE, gpu_lock
from engine_builder.backends.gpu.state import NvmlMonitor, driver_version, open_gpu_monitor
from engine_builder.backends.gpu.visible_gpu import DRIVER, first_visible_gpu
from engine_builder.errors import EngineError, UnsupportedTargetError
from engine_builder.self_check.first_contact.kernels import Kernels, copied_on_gpu
from engine_builder.self_check.first_contact.products import Products, cublas_path
from engine_builder.self_check.first_contact.speeds import conversion_speeds, product_speeds
from engine_builder.workspace.workspace import StageContext

VISIBLE = "CUDA_VISIBLE_DEVICES"
ELEMENTS = 2**20  # of the array that goes to the GPU and back
LOCK_SECONDS = 20.0  # to wait for another job
_READINGS = 20
_ASKED_SECONDS = 30.0


def cuda_visible(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return what the driver says in a child process of ours: version, GPU, and whether a GPU can be named by its UUID.

    The UUID itself is not returned: it tells machines apart.

    Raises:
        UnsupportedTargetError: There is no driver.
        EngineError: There is one, and it shows no GPU.
    """
    del request, context
    require_driver(DRIVER)
    library, version = ctypes.CDLL(DRIVER), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    gpu = first_visible_gpu()
    if gpu is None:
        raise EngineError(
            f"the NVIDIA driver shows no GPU ({VISIBLE} is {_kind(os.environ.get(VISIBLE))})",
            fix="see what nvidia-smi -L says; give the container its GPU (--gpus all); unset " + VISIBLE,
        )
    return {
        "name": gpu.name,
        "compute_capability": list(gpu.compute_capability),
        "driver": driver_version(),
        "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "visible_devices": _kind(os.environ.get(VISIBLE)),
        "network_is_closed": not _has_network(),
        "same_by_uuid": _uuid_with(f"GPU-{gpu.uuid}") == gpu.uuid or _uuid_with(f"MIG-{gpu.uuid}") == gpu.uuid,
    }


def cuda_adapter(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Take the package ``package`` through all that is asked of it: memory, copies, events, a graph, and a refusal.

    Raises:
        UnsupportedTargetError: There is no driver, or the package is not installed.
        EngineError: Something is not as expected.
    """
    del context
    require_driver(DRIVER)
    package = str(request["package"])
    cuda = open_cuda({package: ADAPTERS[package]})
    stream = cuda.create_stream()
    buffer = cuda.allocate(4 * ELEMENTS)
    try:
        sent, received = cuda.page_locked((ELEMENTS,), np.float32), cuda.page_locked((ELEMENTS,), np.float32)
        sent[...] = np.arange(ELEMENTS, dtype=np.float32)
        before = stream.record()
        stream.copy_to_device(buffer, sent)
        stream.copy_to_host(received, buffer)
        after = stream.record()
        after.synchronize()
        _require(np.array_equal(sent, received), f"{cuda.package}: an array came back from the GPU with other values")
        milliseconds = after.ms_since(before)
        _require(milliseconds > 0, f"{cuda.package}: found {milliseconds} ms between two events, expected more than 0")
        graph = _graph(cuda)
        try:
            cuda.allocate(2**50).free()
        except EngineError:
            refused = True
        else:
            refused = False
        _require(refused, f"{cuda.package}: 2**50 bytes were allocated, expected an error")
    finally:
        buffer.free()
        stream.close()
    return {"package": cuda.package, "device": cuda.device.name, "copies_ms": milliseconds, **graph}


def cuda_lock(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Take the GPU's lock and see that a second one is refused.

    Raises:
        EngineError: No lock can be had, or it excludes nobody.
    """
    del request, context
    device = _opened().device
    start = time.perf_counter()
    with gpu_lock(device.uuid, wait_s=LOCK_SECONDS):
        waited = time.perf_counter() - start
        try:
            with gpu_lock(device.uuid, wait_s=0.0):
                excluded = False
        except EngineError as error:
            excluded = "is in use" in error.detail
    _require(excluded, "the GPU's lock was taken twice")
    return {"waited_seconds": waited, "folder_is_named": bool(os.environ.get(FOLDER_VARIABLE))}


def cuda_state(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return by what the GPU's state is read, what a reading costs and what cannot be read.

    Raises:
        UnsupportedTargetError: Nothing that reads it is installed, or it may not.
    """
    del request, context
    place = _opened().device.pci_bus_id
    monitor = open_gpu_monitor(place)
    if monitor is None:
        raise UnsupportedTargetError(
            f"the state of the GPU cannot be read: {_why_no_state(place)}",
            fix="pip install nvidia-ml-py; in a container, NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    info = monitor.info()
    costs = []
    for _ in range(_READINGS if monitor.is_cheap else 2):
        start = time.perf_counter()
        sample = monitor.sample()
        costs.append((time.perf_counter() - start) * 1e3)
    state = {name: getattr(sample, name) for name in sample.__dataclass_fields__}
    return {
        "by": type(monitor).__name__,
        "reading_ms": statistics.median(costs),
        "slowest_reading_ms": max(costs),
        "unknown": sorted(name for name, value in state.items() if value is None),
        "held_back_by": list(sample.held_back_by or ()),
        "other_processes": None if sample.other_processes is None else len(sample.other_processes),
        "mig": info.mig,
        "driver": info.driver,
        "max_sm_clock_mhz": info.max_sm_clock_mhz,
        "sm_clock_mhz": sample.sm_clock_mhz,
    }


def cuda_speed(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return the speeds that the time model starts from: see ``conversion_speeds``."""
    del request, context
    cuda = _opened()
    kernels = Kernels()
    try:
        with gpu_lock(cuda.device.uuid, wait_s=LOCK_SECONDS):
            return conversion_speeds(cuda, kernels)
    finally:
        kernels.close()


def cuda_products(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return the speed of products in each precision: see ``product_speeds``."""
    del request, context
    require_driver(DRIVER)
    library = cublas_path()
    cuda = _opened()
    products = Products(library)
    try:
        with gpu_lock(cuda.device.uuid, wait_s=LOCK_SECONDS):
            return product_speeds(cuda, products)
    finally:
        products.close()


def require_driver(library: str) -> None:
    """Refuse a machine without the driver's library.

    Raises:
        UnsupportedTargetError: It cannot be loaded.
    """
    try:
        ctypes.CDLL(library)
    except OSError as exc:
        raise UnsupportedTargetError(
            f"there is no NVIDIA driver ({library}) on this machine", fix="run it on a machine with an NVIDIA GPU"
        ) from exc


def _opened() -> CudaRuntime:
    require_driver(DRIVER)
    return open_cuda()


def _graph(cuda: CudaRuntime) -> dict[str, object]:
    """Capture a copy on the GPU and launch it; where the package has no graphs, say so."""
    stream = cuda.create_stream()
    source, target = cuda.allocate(4), cuda.allocate(4)
    try:
        value, found = cuda.page_locked((1,), np.float32), cuda.page_locked((1,), np.float32)
        for buffer, number in ((target, 1.0), (source, 2.0)):
            value[...] = number
            stream.copy_to_device(buffer, value)
            stream.synchronize()
        try:
            graph = stream.capture(lambda at: copied_on_gpu(at, source.address, target.address, 4))
        except EngineError as error:
            return {"graph": False, "no_graph_because": error.detail}
        stream.copy_to_host(found, target)
        stream.synchronize()
        before = float(found[0])
        graph.launch()
        stream.copy_to_host(found, target)
        stream.synchronize()
        after = float(found[0])
        graph.close()
        _require(
            (before, after) == (1.0, 2.0), f"{cuda.package}: a graph copied {before} to {after}, expected 1.0 to 2.0 and only when launched"
        )
    finally:
        source.free()
        target.free()
        stream.close()
    return {"graph": True, "no_graph_because": None}


def _why_no_state(pci_bus_id: str) -> str:
    try:
        NvmlMonitor(pci_bus_id)
    except EngineError as error:
        return error.detail
    except ImportError:
        return "neither nvidia-ml-py nor nvidia-smi is installed"
    return "NVML answers now, and did not before"


def _uuid_with(visible: str) -> str | None:
    """Return the UUID of the GPU that a process sees with this in the environment."""
    command = [sys.executable, "-I", str(Path(visible_gpu.__file__).resolve()), DRIVER]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_ASKED_SECONDS, env={**os.environ, VISIBLE: visible}
    )
    return None if done.returncode != 0 else str(json.loads(done.stdout)["uuid"])


def _kind(visible: str | None) -> str:
    if visible is None:
        return "not set"
    kinds = (("MIG-", "a MIG instance"), ("GPU-", "a UUID"))
    return "empty" if not visible.strip() else next((kind for start, kind in kinds if visible.startswith(start)), "an index")


def _has_network() -> bool:
    lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    return any(line.split(":")[0].strip() != "lo" for line in lines)


def _require(is_so: bool, complaint: str) -> None:
    if not is_so:
        raise EngineError(complaint, fix="look at the driver's log (dmesg), and report it")


STAGES: Mapping[str, Callable[[Mapping[str, object], StageContext], dict[str, object]]] = {
    "cuda_visible": cuda_visible,
    "cuda_adapter": cuda_adapter,
    "cuda_lock": cuda_lock,
    "cuda_state": cuda_state,
    "cuda_speed": cuda_speed,
    "cuda_products": cuda_products,
}
