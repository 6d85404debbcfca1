"""What the project asks of CUDA: memory, one stream, events and, where the package has them, graphs.

TensorRT gets plain addresses (``DeviceBuffer.address``, ``Stream.handle``), so any CUDA package will do; ``cuda_core.py`` and
``cuda_pycuda.py`` adapt two of them, ``cuda_devices.py`` picks one. Both use the device's *primary* context, which TensorRT uses too; a
second context would hold a second copy of every module and make addresses of one unknown to the other.

The GPU is the first visible one: a child process is given its GPU by ``CUDA_VISIBLE_DEVICES``. All calls come from the thread that opened
the runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """The GPU that a runtime uses."""

    name: str  # as the driver gives it: NVIDIA L4
    pci_bus_id: str  # 0000:65:00.0, by which the driver's management library knows it too
    compute_capability: tuple[int, int]
    uuid: str  # as the driver gives it for this device, of a divided GPU (MIG) for the instance; names its lock


class DeviceBuffer(Protocol):
    """Memory on the GPU, owned by this object."""

    @property
    def address(self) -> int:
        """Where it starts; never 0."""

    @property
    def size_bytes(self) -> int:
        """How long it is, at least 1."""

    def free(self) -> None:
        """Give the memory back once the work queued so far is done. May be called twice."""


class Event(Protocol):
    """A moment in the work of a stream."""

    def synchronize(self) -> None:
        """Wait until the GPU has passed it."""

    def ms_since(self, earlier: Event) -> float:
        """Return the milliseconds on the GPU's clock from an earlier event of the same runtime; both must have passed."""


class Graph(Protocol):
    """Captured work, which the GPU repeats without the CPU queueing each kernel. Fixed to the shapes and addresses it was captured with."""

    def launch(self) -> None:
        """Queue the work on the stream that it was captured for."""

    def close(self) -> None:
        """Free it. May be called twice."""


class Stream(Protocol):
    """A queue of work on the GPU, done in order."""

    @property
    def handle(self) -> int:
        """The driver's handle, as TensorRT takes it."""

    def synchronize(self) -> None:
        """Wait until the GPU has done all that was queued."""

    def record(self) -> Event:
        """Return the moment at which the work queued so far is done."""

    def copy_to_device(self, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        """Queue a copy of a contiguous, page-locked array to the start of ``target``; the array must not change until it is done."""

    def copy_to_host(self, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        """Queue a copy from the start of ``source`` that fills a contiguous, page-locked array."""

    def capture(self, work: Callable[[int], bool]) -> Graph:
        """Return the work as a graph, ready to launch.

        Args:
            work: Queues the work on the stream whose handle it is given, and returns whether that went well. It must have run once before.

        Raises:
            EngineError: This package has no graphs, or the work cannot be captured. The stream stays usable.
        """

    def close(self) -> None:
        """Free it. May be called twice."""


class CudaRuntime(Protocol):
    """An open GPU."""

    @property
    def package(self) -> str:
        """Name and version of the package behind it, for reports: ``cuda.core 1.2.2``."""

    @property
    def device(self) -> CudaDevice:
        """Which GPU it is."""

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Return memory on the GPU; a size of 0 gives 1 byte, since TensorRT refuses address 0.

        Raises:
            EngineError: The GPU has too little memory left.
        """

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """Return an uninitialised array in page-locked memory, which lives as long as the array."""

    def create_stream(self) -> Stream:
        """Return a new stream that does not wait for the default one."""


def check_room(array: NDArray[np.generic], room: int) -> None:
    """Refuse to copy what would not fit.

    Args:
        array: What is copied, or copied to.
        room: Bytes of the buffer on the other side.

    Raises:
        ValueError: The array is not contiguous, or longer than the buffer.
    """
    if not array.flags.c_contiguous:
        raise ValueError(f"array of shape {array.shape} is not contiguous")
    if array.nbytes > room:
        raise ValueError(f"array of {array.nbytes} bytes, expected at most {room}, the size of the buffer")
