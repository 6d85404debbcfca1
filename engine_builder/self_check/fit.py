r"""What measured times say about the roofline's constants.

The prediction is a sum over kernels of (work at assumed shares of the peaks) + (launch): roof + launches * launch. Both unknowns are fitted
to the measured engines, of which one is nearly all launches and the others nearly none,

    min over a, b >= 0 of sum_i (a roof_i + b launches_i - measured_i)^2 / measured_i^2,

so the shares of compute and bandwidth become share / a, and the launch b. One factor serves both shares: the times of whole engines cannot
tell which of the two was wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
from scipy.optimize import nnls

from engine_builder.backends.gpu.catalogue import Gpu
from engine_builder.backends.kernel_work import work_of
from engine_builder.backends.kernels import Kernel
from engine_builder.backends.nvidia.roofline import kernel_milliseconds
from engine_builder.errors import EngineError

LEAST_ERROR = 0.05  # a prediction is never called better than this
MARGIN = 1.5  # over the largest misfit of the few engines measured
FEWEST = 3  # engines, for two unknowns


@dataclass(frozen=True, slots=True)
class Roofline:
    """A prediction in its two parts, in milliseconds."""

    roof_ms: float  # of all kernels, without launches
    launches: int
    predicted_ms: float  # the two together, with the GPU's constants as they are


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine's prediction beside its time."""

    roofline: Roofline
    measured_ms: float


def roofline_parts(kernels: Sequence[Kernel], gpu: Gpu, *, macs: int) -> Roofline:
    """Return the prediction of an engine in its parts.

    Args:
        kernels: Of the engine, every size that of a run.
        gpu: Where it would run.
        macs: Multiply-accumulates of the model in one run, by which a list without sizes is known.

    Raises:
        EngineError: A kernel's time cannot be told, or the kernels hold less than half of the model's work.
    """
    whole = kernel_milliseconds(kernels, gpu)
    bare = kernel_milliseconds(kernels, replace(gpu, launch_us=0.0))
    marked = kernel_milliseconds(kernels, replace(gpu, launch_us=1e6))  # a kernel that is launched now takes a second more
    listed = sum(work_of(kernel).macs for kernel in kernels)
    if listed < macs / 2:
        raise EngineError(
            f"latency prediction: the kernels list {listed} multiply-accumulates, expected the model's {macs}",
            fix="the builder's list leaves sizes out, or names kernels in another way: report it",
        )
    return Roofline(sum(bare), sum(with_mark - without > 1.0 for with_mark, without in zip(marked, bare, strict=True)), sum(whole))


def fitted_gpu(gpu: Gpu, engines: Sequence[Measured]) -> Gpu:
    """Return the GPU with constants that predict the measured engines.

    Raises:
        EngineError: The measurements cannot tell the constants.
    """
    if len(engines) < FEWEST:
        raise EngineError(f"constants: found {len(engines)} timed engines, expected {FEWEST} or more", fix="see why the others failed")
    measured = np.array([engine.measured_ms for engine in engines])
    parts = np.array([[engine.roofline.roof_ms, engine.roofline.launches] for engine in engines]) / measured[:, np.newaxis]
    (factor, launch_ms), _ = nnls(parts, np.ones(len(engines)))
    if factor <= 0:
        raise EngineError(
            "constants: the times do not grow with the work, expected them to: launches alone explain them",
            fix="repeat on an idle GPU with its clock locked (nvidia-smi -lgc)",
        )
    misfit = float(np.max(np.abs(parts @ (factor, launch_ms) - 1)))
    return replace(
        gpu,
        compute_share=_rounded(gpu.compute_share / factor),
        bandwidth_share=_rounded(gpu.bandwidth_share / factor),
        launch_us=_rounded(launch_ms * 1e3),
        error=min(0.9, round(max(LEAST_ERROR, MARGIN * misfit), 2)),
    )


def gpus_row(gpu: Gpu) -> dict[str, object]:
    """Return the GPU's entry for ``gpus.json``: the present one, with the measured constants in it."""
    data = json.loads(resources.files("engine_builder.backends.gpu").joinpath("gpus.json").read_text(encoding="utf-8"))
    row: dict[str, object] = next(row for row in data["gpus"] if row["name"] == gpu.name)
    constants = {"launch_us": gpu.launch_us, "compute_share": gpu.compute_share, "bandwidth_share": gpu.bandwidth_share, "error": gpu.error}
    return {**row, **constants}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
