"""Latency predicted, not measured: a roofline over the kernels that the builder lists, for one type of GPU.

Per kernel (S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009):

    time = max(2 MACs / (filled * compute_share * peak of the format), bytes / (bandwidth_share * bandwidth)) + launch
    filled = min(1, tiles of the output / multiprocessors)

and per run their sum. What that assumes, so that nobody trusts it further than it goes:

1. Kernels run one after the other, replayed as a CUDA graph; streams do not overlap. Copies to and from the GPU are not in it.
2. The shares of peak and bandwidth that kernels reach are the same for all of them (``gpus.json``, ``assumed``), except that a product
   whose output has fewer tiles than the GPU has multiprocessors keeps only so many of them busy. A tile is square, or as high as there are
   rows where those are fewer: a matrix times a few vectors is spread over all columns. Sums split over multiprocessors and the waiting at
   the start and end of a kernel are not modelled. Of small models the launches are most of the prediction, and it is rather too low.
3. The engine runs again and again. If all of its weights and its largest kernel's tensors fit into the second-level cache together, all is
   read there; if not, weights come from memory, and tensors of a kernel from the cache if they take no more than half of it.
4. The kernel list is the build's (on TensorRT-RTX the plan's), so double writes, conversions and unfused scales of low precision count.

The range is +-``error`` of the GPU (20% unless measured). It covers the sum's error for models that fill the GPU, not point 2;
ratios of two engines on one GPU share most of their errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine_builder.backends.gpu.catalogue import Gpu
from engine_builder.backends.kernel_work import Work, work_of
from engine_builder.backends.kernels import Kernel
from engine_builder.errors import EngineError


@dataclass(frozen=True, slots=True)
class PredictedLatency:
    """Milliseconds of one run, as predicted, and the range that the prediction's own error gives."""

    ms: float
    low_ms: float
    high_ms: float

    def __post_init__(self) -> None:
        """Check the order."""
        if not 0 <= self.low_ms <= self.ms <= self.high_ms:
            raise ValueError(f"found low {self.low_ms}, ms {self.ms}, high {self.high_ms}, expected 0 <= low <= ms <= high")


def predicted_latency(kernels: Sequence[Kernel], gpu: Gpu) -> PredictedLatency:
    """Return the predicted time of one run.

    Args:
        kernels: Of the engine, every size that of the run.
        gpu: Where it would run.

    Raises:
        EngineError: A kernel's time cannot be told: an open size, an unknown format, or arithmetic that the GPU lacks.
    """
    ms = sum(kernel_milliseconds(kernels, gpu))
    return PredictedLatency(ms, ms * (1 - gpu.error), ms * (1 + gpu.error))


def kernel_milliseconds(kernels: Sequence[Kernel], gpu: Gpu) -> tuple[float, ...]:
    """Return the predicted milliseconds of each kernel.

    Raises:
        EngineError: As for ``predicted_latency``.
    """
    try:
        works = [work_of(kernel) for kernel in kernels]
    except ValueError as exc:
        raise EngineError(f"latency prediction: {exc}", fix="predict from a build at fixed sizes") from exc
    cached = _all_cached(works, gpu)
    return tuple(_milliseconds(work, gpu, kernel, cached=cached) for kernel, work in zip(kernels, works, strict=True))


def _all_cached(works: Iterable[Work], gpu: Gpu) -> bool:
    found = list(works)
    return sum(work.constant_bytes for work in found) + max((work.streamed_bytes for work in found), default=0) <= _cache_bytes(gpu)


def _milliseconds(work: Work, gpu: Gpu, kernel: Kernel, *, cached: bool) -> float:
    if not work.on_gpu:
        return 0.0
    bandwidth = gpu.bandwidth_gb_s * 1e9 * gpu.bandwidth_share
    streamed_in_cache = cached or work.streamed_bytes <= _cache_bytes(gpu) / 2
    moving = (
        work.streamed_bytes / (bandwidth * (gpu.l2_factor if streamed_in_cache else 1.0))
        + work.constant_bytes / (bandwidth * (gpu.l2_factor if cached else 1.0))
    )  # fmt: skip
    computing = 0.0
    if work.macs:
        try:
            peak = gpu.operations_per_second(work.math)
        except KeyError as exc:
            raise EngineError(
                f"latency prediction: kernel {kernel.name!r} multiplies in {work.math}, which {gpu.name} has no figure for",
                fix="choose another precision or GPU",
            ) from exc
        filled = min(1.0, _tiles(work, gpu) / gpu.multiprocessors)
        computing = 2 * work.macs / (peak * gpu.compute_share * filled)
    return (max(computing, moving) + gpu.launch_us * 1e-6) * 1e3


def _tiles(work: Work, gpu: Gpu) -> int:
    edge = math.isqrt(gpu.tile_elements)
    if 0 < work.outputs < work.columns * edge:  # fewer rows than a tile is high
        return math.ceil(work.columns / edge)
    return math.ceil(work.outputs / gpu.tile_elements)


def _cache_bytes(gpu: Gpu) -> float:
    return gpu.l2_mb * 2**20
