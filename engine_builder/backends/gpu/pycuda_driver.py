"""CUDA through pycuda: compiled against the machine's own toolkit, without graphs. Not yet run on a GPU.

``pycuda.autoprimaryctx`` makes the primary context current; ``pycuda.autoinit`` would make a second one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine_builder.backends.gpu.cuda_runtime import CudaDevice, DeviceBuffer, Event, Graph, check_room
from engine_builder.backends.gpu.visible_gpu import device_at, driver_uuid
from engine_builder.errors import EngineError


class PyCuda:
    """The GPU that ``pycuda.autoprimaryctx`` opens: the first visible one, unless the variable CUDA_DEVICE says another."""

    def __init__(self) -> None:
        """Open the GPU.

        Raises:
            ImportError: pycuda is not installed, or was compiled against a driver with other symbols.
            EngineError: There is no driver or no GPU.
        """
        self._driver = importlib.import_module("pycuda.driver")
        try:
            self._context = importlib.import_module("pycuda.autoprimaryctx")
        except Exception as exc:  # pycuda.driver.Error and the RuntimeError of a loop over no devices have no common base
            raise EngineError(
                f"pycuda found no usable GPU: {exc}", fix="run on a machine with an NVIDIA GPU and its driver (nvidia-smi shows it)"
            ) from exc

    @property
    def package(self) -> str:
        """Pycuda and its version."""
        return f"pycuda {importlib.import_module('pycuda').VERSION_TEXT}"

    @property
    def device(self) -> CudaDevice:
        """The GPU."""
        device = self._context.device
        major, minor = device.compute_capability()
        place = str(device.pci_bus_id())
        return CudaDevice(str(device.name()), place, (int(major), int(minor)), driver_uuid(device_at(place)))

    def allocate(self, size_bytes: int) -> PyCudaBuffer:
        """Return memory on the GPU."""
        wanted = max(size_bytes, 1)
        try:
            return PyCudaBuffer(self._driver.mem_alloc(wanted), wanted)
        except self._driver.MemoryError as exc:
            raise EngineError(
                f"{self.device.name}: no {wanted / 2**20:.1f} MiB left for a buffer: {exc}", fix="free GPU memory or use a smaller batch"
            ) from exc

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """Return an array in page-locked memory."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        raw: NDArray[np.generic] = self._driver.pagelocked_empty(max(size, 1), np.uint8)
        return raw[:size].view(dtype).reshape(shape)

    def create_stream(self) -> PyCudaStream:
        """Return a new stream."""
        return PyCudaStream(self._driver, self._driver.Stream(_NON_BLOCKING))


class PyCudaBuffer:
    """Memory from the driver's synchronous allocator."""

    def __init__(self, allocation: object, size_bytes: int) -> None:
        """Own a ``pycuda.driver.DeviceAllocation`` of this size."""
        self._allocation = cast(Any, allocation)  # pycuda publishes no types
        self.address = int(self._allocation)
        self.size_bytes = size_bytes

    def free(self) -> None:
        """Give the memory back; the driver waits for the work that uses it."""
        if self._allocation is not None:
            self._allocation.free()
            self._allocation = None


class PyCudaEvent:
    """An event that records the time."""

    def __init__(self, event: object) -> None:
        """Own a ``pycuda.driver.Event``."""
        self.event = cast(Any, event)  # pycuda publishes no types

    def synchronize(self) -> None:
        """Wait for it."""
        self.event.synchronize()

    def ms_since(self, earlier: Event) -> float:
        """Return the milliseconds between the two."""
        if not isinstance(earlier, PyCudaEvent):
            raise TypeError(f"event of {type(earlier).__name__}, expected one of the same runtime")
        return float(self.event.time_since(earlier.event))


class PyCudaStream:
    """A non-blocking stream."""

    def __init__(self, driver: ModuleType, stream: object) -> None:
        """Own a ``pycuda.driver.Stream``."""
        self._driver = driver
        self._stream = cast(Any, stream)  # pycuda publishes no types
        self.handle = int(self._stream.handle)

    def synchronize(self) -> None:
        """Wait for all work."""
        self._stream.synchronize()

    def record(self) -> PyCudaEvent:
        """Record an event."""
        event = self._driver.Event()
        event.record(self._stream)
        return PyCudaEvent(event)

    def copy_to_device(self, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        """Queue a copy to the GPU."""
        check_room(source, target.size_bytes)
        if source.nbytes:
            self._driver.memcpy_htod_async(target.address, source, self._stream)

    def copy_to_host(self, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        """Queue a copy from the GPU."""
        check_room(target, source.size_bytes)
        if target.nbytes:
            self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def capture(self, work: Callable[[int], bool]) -> Graph:
        """Refuse: pycuda has no graphs."""
        raise EngineError("pycuda cannot capture graphs", fix="install cuda-core, or time without a graph")

    def close(self) -> None:
        """Free the stream when its last user is gone; pycuda does not destroy it sooner."""
        self._stream = None


_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name
