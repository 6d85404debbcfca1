"""Times of an engine's layers in the JSON that ``trtexec --exportProfile`` writes, which TREx and others read.

A list: first the number of runs, ``{"count": 24}``; then, in the order of the engine, a layer each, ``{"name", "timeMs", "averageMs",
"medianMs", "percentage"}``: of all runs together, their mean and median, and the share in the time of all layers in percent.
(NVIDIA/TensorRT, samples/common/sampleReporting.cpp.) The file that belongs to it, of ``--exportLayerInfo``, is what the engine's
inspector says, as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine_builder.backends.kernels import KernelTime


def trtexec_profile(times: Sequence[KernelTime]) -> list[dict[str, object]]:
    """Return the profile.

    Args:
        times: Of every layer, with the names that the engine's inspector has.
    """
    whole = sum(time.mean_ms for time in times) or 1.0
    rows: list[dict[str, object]] = [
        {
            "name": time.layer,
            "timeMs": time.mean_ms * time.runs,
            "averageMs": time.mean_ms,
            "medianMs": time.milliseconds,
            "percentage": 100.0 * time.mean_ms / whole,
        }
        for time in times
    ]
    return [{"count": max((time.runs for time in times), default=0)}, *rows]
