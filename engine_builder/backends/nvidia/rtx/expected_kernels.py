"""The kernels that TensorRT-RTX makes of a convolution, and what they take, before anything is built.

Read off plans of TensorRT-RTX 1.7, where convolutions read and write one low precision:

1. FP16: one kernel, with bias and activation in it.
2. INT8: a kernel that writes its sums in float32, and a second one for scales, bias, activation and rounding, which writes INT8.
3. FP8: a kernel that writes FP16, and a second one that rounds it to FP8.

Their times are those of the roofline. Products of matrices have no such second kernel: what follows them (a normalization, an activation)
runs in a kernel of its own in FP16, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import LayerSizes
from engine_builder.backends.gpu.catalogue import Gpu
from engine_builder.backends.kernel_work import CONVOLUTION
from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.backends.nvidia.roofline import kernel_milliseconds

# What a convolution reads, what it writes, and what a second kernel makes of that; empty where there is none.
_FORMATS = {
    Precision.FP16: ("half", "half", ""),
    Precision.INT8: ("int8", "float", "int8"),
    Precision.FP8: ("fp8", "half", "fp8"),
}


def expected_milliseconds(layers: Sequence[LayerSizes], precision: Precision, gpu: Gpu) -> tuple[float, ...] | None:
    """Return what each convolution takes where all of them have this precision, by rules 1 to 3; None of a precision without a rule.

    Args:
        layers: The convolutions of a model, all of them: whether the cache holds their weights depends on all.
        precision: Of all.
        gpu: Where they would run.
    """
    if precision not in _FORMATS:
        return None
    kernels = [expected_kernels(layer, precision) for layer in layers]
    times = iter(kernel_milliseconds([kernel for of_layer in kernels for kernel in of_layer], gpu))
    return tuple(sum(next(times) for _ in of_layer) for of_layer in kernels)


def expected_kernels(layer: LayerSizes, precision: Precision) -> tuple[Kernel, ...]:
    """Return the kernels of a convolution in a precision that has a rule."""
    read, written, rounded = _FORMATS[precision]
    sums = KernelTensor(written, layer.written)
    first = Kernel("", CONVOLUTION, (), (KernelTensor(read, layer.read),), (KernelTensor(read, layer.weight),), (sums,))
    return (first, Kernel("", "kgen", (), (sums,), (), (KernelTensor(rounded, layer.written),))) if rounded else (first,)
