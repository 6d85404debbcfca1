"""A GPU that pretends: memory in numpy arrays, and a clock that its work moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine_builder.backends.gpu.cuda_runtime import CudaDevice, DeviceBuffer, check_room
from engine_builder.errors import EngineError

ROOM = 1 << 40  # bytes
GRAPHS, CAPTURES = 0, 1  # streams on which a graph runs, and on which it is captured; others are numbered from 7


@dataclass
class FakeGpu:
    """The runtime, and the place where its work is noted."""

    now_ms: float = 0.0
    graphs: bool = True
    memory: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    package: str = "fake 1.0"
    device: CudaDevice = field(default_factory=lambda: CudaDevice("NVIDIA Fake 1", "0000:01:00.0", (8, 9), "GPU-1"))
    open_streams: int = 0
    room: int = ROOM  # bytes of the largest buffer

    def clock(self) -> float:
        """Return seconds; the host waits for the GPU, so they share a clock."""
        return self.now_ms / 1e3

    def allocate(self, size_bytes: int) -> FakeBuffer:
        if size_bytes > self.room:
            raise EngineError(f"{self.device.name}: no {size_bytes / 2**20:.1f} MiB left for a buffer", fix="none")
        address = 4096 * (len(self.memory) + 1)
        self.memory[address] = np.zeros(max(size_bytes, 1), dtype=np.uint8)
        return FakeBuffer(self, address, max(size_bytes, 1))

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        return np.zeros(shape, dtype=dtype)

    def create_stream(self) -> FakeStream:
        self.open_streams += 1
        return FakeStream(self, 7)


@dataclass
class FakeBuffer:
    gpu: FakeGpu
    address: int
    size_bytes: int
    is_free: bool = False

    def free(self) -> None:
        if not self.is_free:
            self.gpu.notes.append(f"free {self.address}")
        self.is_free = True


@dataclass
class FakeEvent:
    at_ms: float

    def synchronize(self) -> None:
        return None

    def ms_since(self, earlier: object) -> float:
        assert isinstance(earlier, FakeEvent)
        return self.at_ms - earlier.at_ms


@dataclass
class FakeGraph:
    gpu: FakeGpu
    work: Callable[[int], bool]
    is_closed: bool = False

    def launch(self) -> None:
        self.gpu.notes.append("launch")
        self.work(GRAPHS)

    def close(self) -> None:
        if not self.is_closed:
            self.gpu.notes.append("close graph")
        self.is_closed = True


@dataclass
class FakeStream:
    gpu: FakeGpu
    handle: int
    closed: bool = False

    def synchronize(self) -> None:
        return None

    def record(self) -> FakeEvent:
        return FakeEvent(self.gpu.now_ms)

    def copy_to_device(self, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        check_room(source, target.size_bytes)
        self.gpu.now_ms += 0.1
        self.gpu.memory[target.address][: source.nbytes] = np.frombuffer(source.tobytes(), dtype=np.uint8)

    def copy_to_host(self, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        check_room(target, source.size_bytes)
        self.gpu.now_ms += 0.2
        target[...] = self.gpu.memory[source.address][: target.nbytes].view(target.dtype).reshape(target.shape)

    def capture(self, work: Callable[[int], bool]) -> FakeGraph:
        if not self.gpu.graphs:
            raise EngineError("no graphs here", fix="none")
        if not work(CAPTURES):
            raise EngineError("the work was refused", fix="none")
        return FakeGraph(self.gpu, work)

    def close(self) -> None:
        self.gpu.open_streams -= not self.closed
        self.closed = True
