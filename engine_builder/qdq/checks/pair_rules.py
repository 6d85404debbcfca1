"""What every QuantizeLinear and DequantizeLinear of a TensorRT model must be: signed, symmetric, with positive constant scales."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from calibration.number_formats.precision import Precision
from engine_builder.qdq.graph.qdq_graph import ExplicitGraph, integer, refusal, word

_STORED = {precision.element_type: precision for precision in Precision if precision.is_quantized and not precision.rounds_in_kernel}
_WRONG_TYPES: dict[int, str] = {
    TensorProto.UINT8: "TensorRT would read it as int8 and saturate everything above 127 steps without a word",
    TensorProto.INT32: "TensorRT dequantizes no bias",
    TensorProto.FLOAT8E5M2: "TensorRT has FP8 as e4m3 alone",
    TensorProto.UINT4: "TensorRT has INT4 signed alone",
}


def check_pair(graph: ExplicitGraph, node: onnx.NodeProto, compute_capability: tuple[int, int] | None) -> None:
    """Refuse a QuantizeLinear or DequantizeLinear that TensorRT rejects, or accepts and misreads.

    Raises:
        BuildError: Naming the node, what was found, what is needed and what to do.
    """
    stored = _stored_type(graph, node)
    if stored not in _STORED:
        why = f" ({_WRONG_TYPES[stored]})" if stored in _WRONG_TYPES else ""
        *most, last = map(word, _STORED)
        expected = f"{', '.join(most)} or {last}"
        raise refusal(node, f"it stores {word(stored)}{why}", expected, "quantize signed and symmetric, and leave biases in float")
    if compute_capability is not None and not _STORED[stored].runs_on(compute_capability):
        found = f"{_STORED[stored].upper()} for compute capability {_dotted(compute_capability)}"
        least = _STORED[stored].row.least_compute_capability or compute_capability
        raise refusal(node, found, f"{_dotted(least)} or later", "choose int8 for this GPU")
    _check_zero_point(graph, node)
    _check_scale(graph, node)
    if _STORED[stored].is_weight_only and node.op_type == "QuantizeLinear" and not graph.is_constant(node.input[0]):
        raise refusal(node, f"a computed tensor in {word(stored)}", f"{word(stored)} for weights alone", "leave the activation in fp16")


def _stored_type(graph: ExplicitGraph, node: onnx.NodeProto) -> int:
    if node.op_type == "DequantizeLinear":
        return graph.type_of(node.input[0])
    if len(node.input) > 2 and node.input[2]:
        return graph.type_of(node.input[2])
    chosen = integer(node, "output_dtype")
    if not chosen:
        raise refusal(
            node, "no zero point, so that it makes uint8", "a zero point that says the type", "add a zero point of int8 or float8e4m3fn"
        )
    return chosen


def _check_zero_point(graph: ExplicitGraph, node: onnx.NodeProto) -> None:
    if len(node.input) < 3 or not node.input[2]:
        return
    zero = graph.constant(node.input[2])
    if zero is None:
        raise refusal(node, f"a computed zero point {node.input[2]!r}", "a constant one", "calibrate before the build")
    values = zero.astype(np.float32)
    if np.any(values != 0):
        found = f"zero point {float(values.flat[np.flatnonzero(values)[0]]):g}"
        raise refusal(node, found, "0 everywhere", "quantize symmetrically: scale = max|x| / 127")


def _check_scale(graph: ExplicitGraph, node: onnx.NodeProto) -> None:
    scale = graph.constant(node.input[1])
    if scale is None:
        raise refusal(node, f"a computed scale {node.input[1]!r}", "a constant one", "calibrate before the build")
    values = scale.astype(np.float32)
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if wrong.size:
        raise refusal(node, f"scale {float(wrong.flat[0]):g}", "a positive finite number", "raise the scale of dead channels to 1e-6")
    source = node.input[0]
    if node.op_type == "DequantizeLinear":
        quantize = graph.producer.get(source)
        source = quantize.input[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else source
    if values.size > 1 and not graph.is_constant(source):
        raise refusal(
            node,
            f"{values.size} scales on the computed tensor {source!r} (the layer behind it would run in float without a word)",
            "one scale for the whole tensor",
            "keep per-channel scales to weights",
        )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
