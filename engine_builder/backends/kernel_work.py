"""What a kernel does, read off the sizes of its tensors: multiply-accumulates, bytes moved, and the number format it multiplies in.

Multiply-accumulates (MACs), from sizes alone so that they do not depend on how the builder lays a weight out:

- convolution: output elements times the weight's elements per output channel;
- transposed convolution: input elements times the weight's elements per input channel;
- product of a (B, M, K) and b (B, K, N): BMNK, with K from |a| |b| / |output|, which is K^2, or B K^2 where both are batched;
- fused attention of queries (B, T, d) with S keys: B T S d twice;
- everything else (pointwise, pooling, copies): none; such kernels are bound by what they move.

Bytes: each input and output once; of a constant no more elements than the kernel writes or multiplies with, because a lookup reads only the
rows it returns.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from calibration.number_formats.precision import Precision
from engine_builder.backends.kernels import UNKNOWN, Kernel, KernelTensor

CONVOLUTION = "correlation"
TRANSPOSED = "deconv"
PRODUCT = "gemm"
_PRODUCTS = (PRODUCT, "runtime_fusion")
_ATTENTION = re.compile(r"_mha_")
_NOT_ON_THE_GPU = ("shape_call", "ShapeHostToDevice", "signal", "wait")
# Layer types of both of TensorRT's compilers; a whole region that is compiled as one ("Myelin") may hold anything.
_POINTWISE = re.compile(
    r"kgen|noop|identity|constant|reformat\w*|cast|\w*pointwise\w*|elementwise\w*|unary|activation|scale|\w*pool(ing)?|reduce|softmax|shuffle"
    r"|slice|concat\w*|copy|resize|gather|topk|padding|quantize|dequantize|normalization|layernorm\w*|select|fill",
    re.IGNORECASE,
)
_BITS = {
    "float": 32,
    "half": 16,
    "bfloat16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "fp8": 8,
    "int4": 4,
    "fp4e2m1": 4,
    "int32": 32,
    "int64": 64,
}
FLOATS = {"float": Precision.FP32, "half": Precision.FP16, "bfloat16": Precision.BF16}
LOW_PRECISIONS = {"int8": Precision.INT8, "fp8": Precision.FP8, "int4": Precision.INT4}


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a kernel takes."""

    macs: int
    outputs: int  # elements that it writes
    columns: int  # that a product with one constant matrix writes for each row; 0 for all else
    math: Precision  # what the MACs are done in
    streamed_bytes: int  # inputs and outputs
    constant_bytes: float  # weights and tables
    on_gpu: bool  # False for what only computes sizes or orders streams


def work_of(kernel: Kernel) -> Work:
    """Return what one run of the kernel takes.

    Raises:
        ValueError: A size is open (-1), or a number format is unknown.
    """
    tensors = (*kernel.inputs, *kernel.constants, *kernel.outputs)
    if kernel.kind in _NOT_ON_THE_GPU:
        return Work(0, 0, 0, Precision.FP32, 0, 0, on_gpu=False)
    if any(size < 0 for tensor in tensors for size in tensor.shape):
        raise ValueError(f"kernel {kernel.name!r}: found open sizes, expected those of one run: {[tensor.shape for tensor in tensors]}")
    if any(tensor.dtype == UNKNOWN for tensor in tensors):
        raise ValueError(f"kernel {kernel.name!r}: found a number format that the builder does not say")
    macs = _macs(kernel)
    written = sum(_elements(tensor) for tensor in kernel.outputs)
    weight = weight_of(kernel)
    read = [
        _bytes(tensor) if tensor is weight else min(_elements(tensor), max(written, 1)) * _bits(tensor) / 8 for tensor in kernel.constants
    ]
    streamed = sum(_bytes(tensor) for tensor in (*kernel.inputs, *kernel.outputs))
    return Work(macs, written, _columns(kernel, weight, macs, written), math_of(kernel), math.ceil(streamed), sum(read), on_gpu=True)


def is_attention(kernel: Kernel) -> bool:
    """Whether it is a fused attention: two products and the softmax between them."""
    return bool(_ATTENTION.search(kernel.name))


def factors_of(kernel: Kernel) -> tuple[KernelTensor, ...]:
    """Return the inputs without the masks of a fused attention, which may stand before or behind queries, keys and values."""
    if not is_attention(kernel) or not kernel.outputs:
        return kernel.inputs
    heads = kernel.outputs[0].shape[:-2]
    return tuple(tensor for tensor in kernel.inputs if tensor.dtype != "bool" and tensor.shape[:-2] == heads) or kernel.inputs


def multiplies(kernel: Kernel) -> bool:
    """Whether it holds a convolution or a product of matrices."""
    return kernel.kind in (CONVOLUTION, TRANSPOSED, *_PRODUCTS) or is_attention(kernel)


def weight_of(kernel: Kernel) -> KernelTensor | None:
    """Return what the first input is multiplied with: a constant or, where weights are computed at run time, another input."""
    if not multiplies(kernel) or not kernel.inputs:
        return None
    if is_attention(kernel):
        return factors_of(kernel)[-1]
    if kernel.kind in (CONVOLUTION, TRANSPOSED):
        axis = 1 if kernel.kind == TRANSPOSED else 0
        written = kernel.outputs[0].shape if kernel.outputs else ()
        if len(written) < 3:  # the builder does not say
            return max(kernel.constants, key=_elements, default=None)
        rank, channels = len(written), written[1]
        fitting = [t for t in (*kernel.constants, *kernel.inputs[1:]) if len(t.shape) == rank and (axis or t.shape[0] == channels)]
        return max(fitting, key=_elements, default=None) if not kernel.constants else next(iter(fitting), None)
    matrices = [tensor for tensor in kernel.constants if len(tensor.shape) > 1 and min(tensor.shape[-2:]) > 1]
    return max(matrices, key=_elements) if matrices else (kernel.inputs[1] if len(kernel.inputs) > 1 else None)


def math_of(kernel: Kernel) -> Precision:
    """Return the format a kernel multiplies in: the low precision where both factors are, else that of the floating-point factor."""
    factors = [tensor.dtype for tensor in (*factors_of(kernel)[:1], weight_of(kernel)) if tensor is not None]
    if not multiplies(kernel) or not factors:
        return Precision.FP32
    if len(set(factors)) == 1 and factors[0] in LOW_PRECISIONS:
        return LOW_PRECISIONS[factors[0]]
    found = [
        FLOATS[dtype] for dtype in reversed(factors) if dtype in FLOATS
    ]  # a cast of the first input may be fused, so the weight's first
    return found[0] if found else Precision.FP32


def is_pointwise(kernel: Kernel) -> bool:
    """Whether its kind is one that is known to multiply nothing: what only moves, pools, reduces, or computes element by element."""
    return bool(_POINTWISE.fullmatch(kernel.kind))


def math_is_known(kernel: Kernel) -> bool:
    """Whether the formats of what a kernel multiplies are all known."""
    weight = weight_of(kernel)
    factors = (*factors_of(kernel)[:1], *(() if weight is None else (weight,)))
    known = {*FLOATS, *LOW_PRECISIONS}
    return len(factors) == 2 and all(tensor.dtype in known or tensor.dtype == "fp4e2m1" for tensor in factors)


def _macs(kernel: Kernel) -> int:
    weight = weight_of(kernel)
    if weight is None or not kernel.outputs:
        return 0
    first, output = factors_of(kernel)[0], kernel.outputs[0]
    if is_attention(kernel):
        return 2 * _elements(first) * weight.shape[-2]
    if kernel.kind in (CONVOLUTION, TRANSPOSED):
        moving = first if kernel.kind == TRANSPOSED else output
        return _elements(moving) * math.prod(weight.shape[1:])
    batch = math.prod(first.shape[:-2]) if first.shape[:-2] == weight.shape[:-2] else 1
    squared = _elements(first) * _elements(weight) / max(_elements(output) * batch, 1)
    return round(_elements(output) * math.sqrt(squared))


def _columns(kernel: Kernel, weight: KernelTensor | None, macs: int, written: int) -> int:
    """Return the columns of the product of all rows with one constant matrix, however the output is cut into heads."""
    is_matrix = weight is not None and weight in kernel.constants and kernel.kind in _PRODUCTS and math.prod(weight.shape[:-2]) == 1
    if weight is None or not is_matrix or not macs:
        return 0
    return max(round(_elements(weight) * written / macs), 1)  # K N / K


def _elements(tensor: KernelTensor) -> int:
    return math.prod(tensor.shape)


def _bits(tensor: KernelTensor) -> int:
    if tensor.dtype not in _BITS:
        raise ValueError(f"number format: found {tensor.dtype!r}, expected one of {', '.join(_BITS)}")
    return _BITS[tensor.dtype]


def _bytes(tensor: KernelTensor) -> float:
    return _elements(tensor) * _bits(tensor) / 8
