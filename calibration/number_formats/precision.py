"""The number formats that a layer may take, and how targets quantize.

The formats are one literal table, a row a format: code asks a member what it can, not which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto

from calibration.number_formats.grids import E4M3, FP16_MAX, FloatGrid, IntegerGrid
from calibration.number_formats.number_format import FormatTable, NumberFormat

_FP32 = FloatGrid(np.dtype(np.float32), top=float(np.finfo(np.float32).max))
_FP16 = FloatGrid(np.dtype(np.float16), top=FP16_MAX)
_BF16 = FloatGrid(np.dtype(ml_dtypes.bfloat16), top=float.fromhex("0x1.fep+127"))
_INT8 = IntegerGrid(8, np.dtype(np.int8))
_INT4 = IntegerGrid(4, np.dtype(ml_dtypes.int4))
_ALL_OF_INT4 = IntegerGrid(4, np.dtype(ml_dtypes.int4), uses_lowest=True)
_BLOCK = 128  # weights: as accurate for the time it saves as 32, and faster in the end (docs/method.md)


class Precision(FormatTable):
    """A number format for a layer's inputs and weights."""

    FP32 = NumberFormat("fp32", 32, TensorProto.FLOAT, _FP32, "#55626f")
    FP16 = NumberFormat("fp16", 16, TensorProto.FLOAT16, _FP16, "#7b61c4")
    BF16 = NumberFormat("bf16", 16, TensorProto.BFLOAT16, _BF16, "#a05fb5", least_opset=22, least_compute_capability=(8, 0))
    INT8 = NumberFormat("int8", 8, TensorProto.INT8, _INT8, "#2268c4", rounds_inputs=True, least_opset=19)
    INT8_DYNAMIC = NumberFormat("int8_dynamic", 8, TensorProto.INT8, _INT8, "#4fa3d9", is_dynamic=True)
    INT8_WEIGHTS = NumberFormat("int8_weights", 8, TensorProto.INT8, _INT8, "#1b8a5a", rounds_blocks=True, weight_block=_BLOCK)
    INT4_WEIGHTS = NumberFormat("int4_weights", 4, TensorProto.INT4, _ALL_OF_INT4, "#c98a12", rounds_blocks=True, weight_block=_BLOCK)
    FP8 = NumberFormat(
        "fp8", 8, TensorProto.FLOAT8E4M3FN, E4M3, "#138f93", rounds_inputs=True, least_opset=19, least_compute_capability=(8, 9)
    )
    INT4 = NumberFormat("int4", 4, TensorProto.INT4, _INT4, "#c8452f", weight_block=32, least_opset=21)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a target quantizes: the numerics of its explicit graph, which probes must imitate exactly.

    Activations are per tensor; weights are symmetric and per output channel, those of small floats with one scale. Float types round
    everything that a layer reads and writes; formats that do not round inputs, the weight alone.
    """

    symmetric_activations: bool  # signed with zero point 0 (TensorRT), else unsigned with a zero point (ONNX Runtime CPU)
    quantized_outputs: tuple[str, ...]  # op types whose output is quantized too (for all of its consumers)
    blocks_weights: bool = False  # weights of products in the blocks of their format, along the reduction axis
    shares_sums: bool = False  # a sum rounds only the inputs that a weighted layer reads too: nothing else has a stored copy to share
    bounds_softmax: bool = False  # the output of a Softmax has the range [0, 1], whatever was measured
    fuses_conversions: bool = False  # the kernel that writes a tensor writes the form that its readers take, whatever its own
    bounds_pairs: bool = False  # INT8 weights keep the pair bound (``pair_bound``), for processors whose integer kernels saturate


ONNXRUNTIME_CPU_SCHEME = Scheme(symmetric_activations=False, quantized_outputs=("Conv", "ConvTranspose", "Add", "Gemm"))
TENSORRT_SCHEME = Scheme(
    symmetric_activations=True, quantized_outputs=(), blocks_weights=True, shares_sums=True, bounds_softmax=True, fuses_conversions=True
)
