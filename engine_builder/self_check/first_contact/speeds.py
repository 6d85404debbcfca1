"""What the time model starts from, measured: copies, conversions between FP16 and INT8, launches, products. Not yet run on a GPU.

Conversions and copies are timed at two sizes: of one that the second-level cache holds, and of one that only the memory does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from engine_builder.backends.gpu.catalogue import typical_conversion_ms
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime, DeviceBuffer, Stream
from engine_builder.backends.gpu.event_timing import time_on_gpu
from engine_builder.errors import EngineError
from engine_builder.self_check.first_contact.kernels import Kernels, copied_on_gpu
from engine_builder.self_check.first_contact.products import FORMS, Products, ProductWork, buffer_sizes

SIZES = (2**20, 2**26)  # elements
SIDES = (512, 4096)  # of square matrices
SECONDS = 0.3  # of timed runs, for each size
_LAUNCHES = 100  # in one graph, so that what is around them does not count
_SCALE = 1 / 16  # of the bytes
_FINITE = 60  # bytes below it make finite numbers in every form


@dataclass(frozen=True, slots=True)
class Queued:
    """Work that copies nothing to or from the host, as ``time_on_gpu`` takes it."""

    work: Callable[[int], bool]

    def enqueue(self, stream: int) -> bool:
        """Queue it on the stream with this handle."""
        return self.work(stream)

    def copy_in(self, stream: Stream) -> None:
        """Nothing is copied."""

    def copy_out(self, stream: Stream) -> None:
        """Nothing is copied."""


def conversion_speeds(cuda: CudaRuntime, kernels: Kernels) -> dict[str, object]:
    """Return milliseconds an element of each conversion by size, gigabytes a second of a copy on the GPU, and microseconds a launch.

    Raises:
        EngineError: A kernel does not run, or computes something else.
    """
    stream = cuda.create_stream()
    halves, integers, copied = (cuda.allocate(SIZES[-1] * width) for width in (2, 1, 2))
    try:
        _require_right(cuda, stream, kernels, halves, integers)
        found: dict[str, object] = {"prior_ms": typical_conversion_ms(cuda.device.compute_capability)}
        for size in SIZES:
            works = {
                "quantize": _converting(kernels, "quantize", halves, integers, size, 1 / _SCALE),
                "dequantize": _converting(kernels, "dequantize", integers, halves, size, _SCALE),
                "copy": _copying(halves, copied, 2 * size),
            }
            times = {name: timed.timing.median_ms for name, timed in time_on_gpu(works, stream, seconds=SECONDS).items()}
            found[f"{size} elements"] = {
                "quantize_ms_per_element": times["quantize"] / size,
                "dequantize_ms_per_element": times["dequantize"] / size,
                "copy_gb_per_s": 2 * 2 * size / times["copy"] / 1e6,  # read and written
            }
        found |= _launches(stream, kernels)
    finally:
        for buffer in (halves, integers, copied):
            buffer.free()
        stream.close()
    return found


def product_speeds(cuda: CudaRuntime, products: Products) -> dict[str, object]:
    """Return milliseconds and tera-operations a second of products by precision and size; a form that is refused says why."""
    stream = cuda.create_stream()
    found: dict[str, object] = {}
    try:
        for side in SIDES:
            first, second, third = (cuda.allocate(size) for size in buffer_sizes(side))
            try:
                for buffer in (first, second):
                    _fill(cuda, stream, buffer)
                rows: dict[str, object] = {}
                for form in FORMS:
                    work = ProductWork(products, form, side, (first, second, third))
                    try:
                        timed = time_on_gpu({form.name: work}, stream, seconds=SECONDS)[form.name]
                    except EngineError as error:
                        rows[form.name] = {"refused": error.detail}
                        continue
                    rows[form.name] = {
                        "ms": timed.timing.median_ms,
                        "tops": 2 * side**3 / timed.timing.median_ms / 1e9,
                        "graph": timed.graph,
                    }
                found[f"side {side}"] = rows
            finally:
                for buffer in (first, second, third):
                    buffer.free()
    finally:
        stream.close()
    return found


def _converting(kernels: Kernels, name: str, source: DeviceBuffer, target: DeviceBuffer, size: int, factor: float) -> Queued:
    return Queued(lambda at: kernels.convert(name, at, source.address, target.address, size, factor))


def _copying(source: DeviceBuffer, target: DeviceBuffer, size_bytes: int) -> Queued:
    return Queued(lambda at: copied_on_gpu(at, source.address, target.address, size_bytes))


def _launches(stream: Stream, kernels: Kernels) -> Mapping[str, float]:
    def many(at: int) -> bool:
        return all(kernels.nothing(at) for _ in range(_LAUNCHES))

    work = {"launches": Queued(many)}
    ways = {
        name: time_on_gpu(work, stream, seconds=SECONDS, use_graph=use_graph)["launches"]
        for name, use_graph in (("graph", True), ("plain", False))
    }
    return {f"launch_us_{name}": timed.timing.median_ms / _LAUNCHES * 1e3 for name, timed in ways.items()}


def _require_right(cuda: CudaRuntime, stream: Stream, kernels: Kernels, halves: DeviceBuffer, integers: DeviceBuffer) -> None:
    """Take all bytes to FP16 and back, which must give the same bytes, and beyond their range, which must give its ends."""
    sent, there, back = (cuda.page_locked((256,), dtype) for dtype in (np.int8, np.float16, np.int8))
    sent[...] = np.arange(-128, 128).astype(np.int8)
    stream.copy_to_device(integers, sent)
    went = kernels.convert("dequantize", stream.handle, integers.address, halves.address, 256, _SCALE)
    stream.copy_to_host(there, halves)
    went &= kernels.convert("quantize", stream.handle, halves.address, integers.address, 256, 2 / _SCALE)
    stream.copy_to_host(back, integers)
    stream.synchronize()
    values = np.arange(-128, 128)
    is_right = np.array_equal(np.asarray(there), (values * _SCALE).astype(np.float16)) and np.array_equal(
        np.asarray(back), np.clip(2 * values, -128, 127)
    )
    if not (went and is_right):
        raise EngineError(
            "conversions: the GPU's results differ from the CPU's, expected equal ones",
            fix="look at the driver's log (dmesg), and report it",
        )


def _fill(cuda: CudaRuntime, stream: Stream, buffer: DeviceBuffer) -> None:
    """Fill with numbers that are finite in every form: zeros would take less power, and so less time."""
    values = cuda.page_locked((buffer.size_bytes,), np.uint8)
    values[...] = np.random.default_rng(0).integers(0, _FINITE, buffer.size_bytes, dtype=np.uint8)
    stream.copy_to_device(buffer, values)
    stream.synchronize()
