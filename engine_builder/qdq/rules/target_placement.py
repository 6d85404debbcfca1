"""Which low precisions are worth trying on which target, of those that its builder has a form for.

*TensorRT-RTX* pads the input of an 8-bit convolution of fewer than four channels a group (a depthwise one, a stem) by a kernel of its own:

1. no low precision for those.

*TensorRT* has kernels for them, so timing decides. Left out is what NVIDIA's own quantizer leaves out
(https://github.com/NVIDIA/Model-Optimizer, ``modelopt.onnx.quantization``), since it never gains:

2. FP8 for a convolution of 16 channels or fewer, in or out, a group, or with a filter of more than 32 elements.
3. Products of a matrix and a vector, which have no use for matrix units. How many rows a product has is known where the graph says it: a
   batch that is open is not.
4. A convolution on a map of one element, as in a squeeze-and-excitation block: such a product too.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import onnx

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision

_FEWEST_CHANNELS = 4  # rule 1
_FEWEST_FP8_CHANNELS = 17  # rule 2
_MOST_FP8_FILTER = 32
_STACKED = 3  # axes of an output that is no single matrix


class Placement(enum.Enum):
    """Whose rules hold."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"

    def why_left_out(
        self, layer: Layer, precision: Precision, weight: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]
    ) -> str | None:
        """Return why a layer is not tried in a low precision, None where it is.

        Args:
            layer: The layer.
            precision: The low precision.
            weight: Shape of its weight; empty without one.
            shapes: Of the model's tensors, by name, as far as they are known; an open size is 0.
        """
        if self is Placement.TENSORRT_RTX:
            return _thin(weight) if layer.op_type == "Conv" else None
        if layer.op_type == "Conv":
            small = _one_element(shapes.get(layer.inputs[0], ()))
            return small or (_small_for_fp8(weight) if precision is Precision.FP8 else None)
        if precision.is_weight_only:  # narrow weights are what such a product gains from
            return None
        return _vector(layer, shapes.get(layer.output, ()))


def shapes_in(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a model notes, by tensor name, 0 for an open size."""
    noted = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in noted
        if value.type.tensor_type.HasField("shape")
    }


def _thin(weight: tuple[int, ...]) -> str | None:  # rule 1
    if len(weight) > 1 and weight[1] < _FEWEST_CHANNELS:
        return f"it has {weight[1]} input channel(s) a group, which a kernel of its own would pad to {_FEWEST_CHANNELS}"
    return None


def _small_for_fp8(weight: tuple[int, ...]) -> str | None:  # rule 2
    if min(weight[:2], default=_FEWEST_FP8_CHANNELS) < _FEWEST_FP8_CHANNELS:
        return (
            f"it has {weight[1]} input channels a group and {weight[0]} output channels, and FP8 pays from {_FEWEST_FP8_CHANNELS} of both"
        )
    if math.prod(weight[2:]) > _MOST_FP8_FILTER:
        return f"its filter has {math.prod(weight[2:])} elements, and FP8 pays up to {_MOST_FP8_FILTER}"
    return None


def _one_element(shape: tuple[int, ...]) -> str | None:  # rule 4
    return "it reads maps of one element, so it multiplies a matrix and a vector" if shape[2:] and set(shape[2:]) == {1} else None


def _vector(layer: Layer, output: tuple[int, ...]) -> str | None:  # rule 3
    if layer.kind is LayerKind.RESIDUAL_ADD or not output:
        return None
    is_vector = 1 in (output[-2:] if layer.kind is LayerKind.ATTENTION_PRODUCT else output if len(output) < _STACKED else ())
    return "it multiplies a matrix and a vector" if is_vector else None
