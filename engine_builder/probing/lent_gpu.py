"""Keeps probes on CUDA off a GPU on which somebody builds or times an engine, and both off each other while the probes run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from calibration.execution.provider import Provider
from engine_builder.backends.gpu.lock import gpu_lock
from engine_builder.backends.gpu.visible_gpu import VisibleGpu
from engine_builder.backends.registry import gpu_here

WAIT_SECONDS = 5.0  # others may measure what waits longer


@contextmanager
def lent_gpu(
    provider: Provider | None, *, find: Callable[[], VisibleGpu | None] = gpu_here, wait_s: float = WAIT_SECONDS
) -> Iterator[None]:
    """Hold the GPU while the block runs, where it is to run on CUDA.

    Args:
        provider: What the block computes with; None: whatever it finds.
        find: Returns the GPU that CUDA shows first.
        wait_s: Seconds to wait for another holder.

    Raises:
        GpuInUseError: Another process holds the GPU for longer.
    """
    gpu = find() if provider is Provider.CUDA else None
    if gpu is None:
        yield
        return
    with gpu_lock(gpu.uuid, wait_s=wait_s):
        yield
