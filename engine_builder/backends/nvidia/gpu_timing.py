"""Times engines on the GPU against each other and says under which conditions: the GPU's state, MIG, other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine_builder.backends.gpu.cuda_runtime import CudaRuntime
from engine_builder.backends.gpu.event_timing import GpuTiming, Transfers, time_on_gpu, transfers_on_gpu
from engine_builder.backends.gpu.lock import WAIT_SECONDS, gpu_lock
from engine_builder.backends.gpu.state import GpuInfo, GpuMonitor
from engine_builder.backends.gpu.state_watch import StateWatch
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.timing import Enough, all_the_time


@dataclass(frozen=True, slots=True)
class TimedEngines:
    """What one comparison found."""

    timings: Mapping[str, GpuTiming]
    transfers: Mapping[str, Transfers]  # copies of one batch, not part of the timings
    info: GpuInfo | None  # None where it is not known
    warnings: tuple[str, ...]  # why the times may not repeat


def time_engines(
    runners: Mapping[str, TensorRtRunner],
    feeds: Mapping[str, NDArray[np.generic]],
    cuda: CudaRuntime,
    monitor: GpuMonitor | None,
    *,
    seconds: float,
    enough: Enough = all_the_time,
    use_graph: bool = True,
    wait_s: float = WAIT_SECONDS,
    lock_folder: Path | None = None,
) -> TimedEngines:
    """Return the times of open engines, in turns, while no other job of ours uses the GPU.

    Args:
        runners: Open engines by name, the baseline among them.
        feeds: The batch whose accuracy was measured.
        cuda: The GPU they are open on.
        monitor: Reads its state, beside the timing; None where that cannot be had.
        seconds: For all engines together, warm-up apart.
        enough: Ends the rounds early, see ``time_on_gpu``.
        use_graph: Whether to try CUDA graphs.
        wait_s: Seconds to wait for another job on this GPU.
        lock_folder: See ``gpu_lock``.

    Raises:
        EngineError: The GPU stayed in use, or an engine failed.
    """
    with gpu_lock(cuda.device.uuid, wait_s=wait_s, folder=lock_folder), StateWatch(monitor) as watch:
        stream = cuda.create_stream()
        try:
            for runner in runners.values():
                runner.prepare(feeds)
                runner.copy_in(stream)
            stream.synchronize()
            timings = time_on_gpu(runners, stream, seconds=seconds, enough=enough, use_graph=use_graph, state=watch.latest)
            transfers = {name: transfers_on_gpu(runner, stream) for name, runner in runners.items()}
        finally:
            stream.close()
    return TimedEngines(timings, transfers, watch.info, _warnings(monitor, watch, timings))


def _warnings(monitor: GpuMonitor | None, watch: StateWatch, timings: Mapping[str, GpuTiming]) -> tuple[str, ...]:
    if monitor is None:
        return ("the state of the GPU is not known: nvidia-ml-py and nvidia-smi are not installed, or may not ask the driver",)
    rounds = next(iter(timings.values())).states
    states = [state for state in (*rounds, watch.latest()) if state is not None]
    found = []
    if watch.why_unknown is not None:
        found.append(f"the state of the GPU is not known, or only in part: {watch.why_unknown}")
    if watch.info is not None and watch.info.mig:
        found.append("the GPU is divided (MIG): other instances share its clocks and power")
    others = sorted({process for state in states for process in state.other_processes or ()})
    if others:
        found.append(f"other processes use the GPU: {', '.join(map(str, others))}")
    reasons = sorted({reason for state in states for reason in state.held_back_by or ()})
    if reasons:
        share = sum(bool(state.held_back_by) for state in states) / len(states)
        found.append(f"the clock was held back in {share:.0%} of the readings: {', '.join(reasons)}")
    clocks = [state.sm_clock_mhz for state in states if state.sm_clock_mhz is not None]
    if clocks and min(clocks) < 0.95 * max(clocks):
        found.append(f"the clock moved between {min(clocks)} and {max(clocks)} MHz: lock it with nvidia-smi -lgc")
    return tuple(found)
