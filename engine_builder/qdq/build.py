"""The front door: the explicit model of an assignment in the dialect of the target that it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import Smoothing
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision, Scheme
from engine_builder.errors import BuildError
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt


def explicit_model(
    prepared: onnx.ModelProto,
    layers: Sequence[Layer],
    assignment: Mapping[str, Precision],
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    smoothings: Sequence[Smoothing] = (),
    baseline: Precision = Precision.FP32,
    levels: Levels | None = None,
    floats: Mapping[str, Precision] | None = None,
) -> onnx.ModelProto:
    """Return the explicit model; the prepared model is left as it is.

    Args:
        prepared: Result of ``calibration.graph_passes.normalize.prepare``.
        layers: ``find_layers(prepared)``.
        assignment: Precision by layer name; a layer that is missing has the baseline's.
        ranges: (lowest, highest) by tensor name, for the inputs and outputs of every layer.
        scheme: How the target quantizes; a strongly typed one has the dialect of ``tensorrt``, others that of ``rewrite``.
        smoothings: Tensors to smooth for the layers that read them.
        baseline: Precision of what is not low: FP32 unless the scheme is strongly typed.
        levels: Integer weights in the place of the nearest.
        floats: Float types by node name, of a strongly typed model's nodes that have another one than the baseline's.

    Raises:
        BuildError: The dialect has no form for the assignment.
    """
    if scheme.strongly_typed:
        return rewrite_tensorrt(prepared, layers, assignment, ranges, smoothings, baseline=baseline, levels=levels, floats=floats)
    if baseline is not Precision.FP32:
        raise BuildError(f"baseline: {baseline}, expected fp32: this target has no types of its own", fix="use the target's own baseline")
    return rewrite(prepared, layers, assignment, ranges, scheme, smoothings, levels)
