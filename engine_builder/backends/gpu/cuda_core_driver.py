"""CUDA through NVIDIA's cuda.core: plain wheels, with graphs.

Not yet run on a GPU; the tests run it and the package's own code against a stub driver.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine_builder.backends.gpu.cuda_runtime import CudaDevice, DeviceBuffer, Event, Graph, check_room
from engine_builder.errors import EngineError


class CudaCore:
    """The first visible GPU, its primary context current on the thread that creates this object."""

    def __init__(self) -> None:
        """Open the GPU.

        Raises:
            ImportError: cuda.core is not installed.
            EngineError: There is no driver or no GPU.
        """
        self._core = importlib.import_module("cuda.core")
        try:
            self._device = self._core.Device(0)
            self._device.set_current()
        except Exception as exc:  # the package raises several unrelated types here, its own CUDAError among them
            raise EngineError(
                f"cuda.core found no usable GPU: {exc}", fix="run on a machine with an NVIDIA GPU and its driver (nvidia-smi shows it)"
            ) from exc
        self._memory = self._core.DeviceMemoryResource(self._device)
        self._pinned = self._core.LegacyPinnedMemoryResource()

    @property
    def package(self) -> str:
        """cuda.core and its version."""
        return f"cuda.core {self._core.__version__}"

    @property
    def device(self) -> CudaDevice:
        """The GPU."""
        capability = self._device.compute_capability
        properties = self._device.properties
        # Device.pci_bus_id goes through the CUDA runtime library, a second way into the driver that nothing else here takes.
        place = f"{int(properties.pci_domain_id):04x}:{int(properties.pci_bus_id):02x}:{int(properties.pci_device_id):02x}.0"
        return CudaDevice(str(self._device.name), place, (int(capability.major), int(capability.minor)), str(self._device.uuid))

    def allocate(self, size_bytes: int) -> CoreBuffer:
        """Return memory on the GPU."""
        wanted = max(size_bytes, 1)
        stream = self._device.default_stream
        try:
            buffer = self._memory.allocate(wanted, stream=stream)
        except Exception as exc:  # CUDAError is not exported
            raise EngineError(
                f"{self.device.name}: no {wanted / 2**20:.1f} MiB left for a buffer: {exc}", fix="free GPU memory or use a smaller batch"
            ) from exc
        stream.sync()  # the pool hands memory out in the order of the default stream, which our streams do not wait for
        return CoreBuffer(buffer)

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """Return an array in page-locked memory."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._pinned.allocate(max(size, 1))
        raw: Any = (ctypes.c_ubyte * max(size, 1)).from_address(int(buffer.handle))
        raw.owner = buffer  # the array's base keeps the memory alive
        flat: NDArray[np.generic] = np.frombuffer(raw, dtype=np.uint8)[:size].view(dtype)
        return flat.reshape(shape)

    def create_stream(self) -> CoreStream:
        """Return a new stream."""
        options = self._core.StreamOptions(nonblocking=True)
        return CoreStream(self._core, self._device.create_stream(options=options))


class CoreBuffer:
    """Memory of the GPU's own pool."""

    def __init__(self, buffer: object) -> None:
        """Own a ``cuda.core.Buffer``."""
        self._buffer = cast(Any, buffer)  # cuda.core publishes no types
        self.address = int(self._buffer.handle)
        self.size_bytes = int(self._buffer.size)

    def free(self) -> None:
        """Give the memory back."""
        self._buffer.close()


class CoreEvent:
    """An event that records the time."""

    def __init__(self, event: object) -> None:
        """Own a ``cuda.core.Event``."""
        self.event = cast(Any, event)  # cuda.core publishes no types

    def synchronize(self) -> None:
        """Wait for it."""
        self.event.sync()

    def ms_since(self, earlier: Event) -> float:
        """Return the milliseconds between the two."""
        if not isinstance(earlier, CoreEvent):
            raise TypeError(f"event of {type(earlier).__name__}, expected one of the same runtime")
        return float(self.event - earlier.event)


class CoreGraph:
    """A captured graph and the stream it runs on."""

    def __init__(self, graph: object, stream: object) -> None:
        """Own a ``cuda.core.graph.Graph``, launched on a ``cuda.core.Stream``."""
        self._graph = cast(Any, graph)  # cuda.core publishes no types
        self._stream = stream

    def launch(self) -> None:
        """Queue it."""
        self._graph.launch(self._stream)

    def close(self) -> None:
        """Free it."""
        self._graph.close()


class CoreStream:
    """A non-blocking stream."""

    def __init__(self, core: ModuleType, stream: object) -> None:
        """Own a ``cuda.core.Stream``."""
        self._core = core
        self._stream = cast(Any, stream)  # cuda.core publishes no types
        self.handle = int(self._stream.handle)

    def synchronize(self) -> None:
        """Wait for all work."""
        self._stream.sync()

    def record(self) -> CoreEvent:
        """Record an event."""
        return CoreEvent(self._stream.record(options=self._core.EventOptions(timing_enabled=True)))

    def copy_to_device(self, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        """Queue a copy to the GPU."""
        check_room(source, target.size_bytes)
        self._copy(target.address, source.ctypes.data, source.nbytes)

    def copy_to_host(self, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        """Queue a copy from the GPU."""
        check_room(target, source.size_bytes)
        self._copy(target.ctypes.data, source.address, target.nbytes)

    def capture(self, work: Callable[[int], bool]) -> Graph:
        """Capture on a stream of its own, so that a failed capture leaves this stream usable."""
        try:
            graph = self._captured(work)
        except EngineError:
            raise
        except Exception as exc:  # CUDAError is not exported; closing the builder may raise one more
            raise EngineError(f"cuda.core could not capture a graph: {exc}", fix="time it without a graph") from exc
        return CoreGraph(graph, self._stream)

    def close(self) -> None:
        """Free the stream."""
        self._stream.close()

    def _captured(self, work: Callable[[int], bool]) -> object:
        builder = self._stream.device.create_graph_builder()
        try:
            builder.begin_building("relaxed")
            went_well = work(int(builder.stream.handle))
            builder.end_building()
            if not went_well:
                raise EngineError("the work cannot be queued while a graph is captured", fix="time it without a graph")
            graph = builder.complete()
        finally:
            builder.close()
        graph.upload(self._stream)
        return graph

    def _copy(self, target: int, source: int, size: int) -> None:
        if size:
            buffer = self._core.Buffer
            buffer.from_handle(target, size).copy_from(buffer.from_handle(source, size), stream=self._stream)
