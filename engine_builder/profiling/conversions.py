"""The kernels that only bring a tensor into another form, and what each kind takes by its size.

What a conversion takes for an element depends on its size too: tensors beyond the processor's caches take longer. So each kind has a table
of what was seen, and what lies between is interpolated along the logarithm of the size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine_builder.backends.kernels import KernelTime
from engine_builder.search.times.layouts import Step
from engine_builder.search.times.step_times import StepTimes

# Names of ONNX Runtime's operators. Its transposes of integers bring convolutions' tensors into the layout of its integer kernels and back.
_STEPS = {
    "QuantizeLinear": Step.QUANTIZE,
    "DequantizeLinear": Step.DEQUANTIZE,
    "ReorderInput": Step.BLOCK,
    "ReorderOutput": Step.UNBLOCK,
}
_INTEGERS = ("uint8", "int8")


def step_of(kernel: KernelTime) -> Step | None:
    """Return which conversion a kernel is, None for one that computes something."""
    if kernel.operator == "Transpose" and kernel.reads in _INTEGERS:
        return Step.TRANSPOSE
    return _STEPS.get(kernel.operator)


def step_times(profiles: Iterable[Iterable[KernelTime]]) -> StepTimes:
    """Return what each kind of conversion takes, from all of those in the profiles.

    Args:
        profiles: The kernels of each engine.
    """
    seen: dict[Step, dict[int, list[float]]] = {}
    for kernels in profiles:
        for kernel in kernels:
            step = step_of(kernel)
            if step is not None and kernel.elements > 0:
                seen.setdefault(step, {}).setdefault(kernel.elements, []).append(kernel.milliseconds)
    return StepTimes(
        {step: tuple((size, float(np.median(times))) for size, times in sorted(found.items())) for step, found in seen.items()}
    )
