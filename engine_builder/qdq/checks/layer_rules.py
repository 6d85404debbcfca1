"""How a convolution or matrix product of a TensorRT model may read quantized tensors: all of its operands or none, in one format."""

from __future__ import annotations

import onnx

from calibration.number_formats.precision import Precision
from engine_builder.qdq.graph.qdq_graph import LAYERS, ExplicitGraph, integer, refusal, word

_WEIGHT_ONLY = frozenset(precision.element_type for precision in Precision if precision.is_weight_only)
_PRODUCTS = frozenset({"MatMul", "Gemm"})


def check_layer(graph: ExplicitGraph, node: onnx.NodeProto) -> None:
    """Refuse a Conv, ConvTranspose, Gemm or MatMul whose quantized operands TensorRT rejects, or runs in float without a word.

    Raises:
        BuildError: Naming the node, what was found, what is needed and what to do.
    """
    if len(node.input) > 2 and node.input[2] and graph.dequantized(node.input[2]) is not None:
        raise refusal(node, f"a quantized bias {node.input[2]!r}", "a float bias", "quantize inputs and weights alone")
    pairs = [graph.dequantized(name) for name in node.input[:2]]
    if all(pair is None for pair in pairs):
        return
    if node.op_type == "ConvTranspose":
        raise refusal(node, "quantized operands, which it would dequantize at run time", "float ones", "leave the layer in fp16")
    left, right = pairs
    formats = {graph.type_of(pair.input[0]) for pair in pairs if pair is not None}
    weight_only = formats & _WEIGHT_ONLY
    if weight_only:
        _check_weight_only(graph, node, left, right, word(min(weight_only)))
        return
    if (left is not None and right is None) or (right is not None and left is None and not graph.is_stored_weight(right)):
        quantized, plain = (node.input[0], node.input[1]) if left is not None else (node.input[1], node.input[0])
        raise refusal(
            node,
            f"{quantized!r} is quantized and {plain!r} is not, so that it would run in float with a rounding for nothing",
            "a pair on both operands or on neither",
            "quantize the other operand too, or leave the layer in fp16",
        )
    if left is None and node.op_type not in _PRODUCTS:
        raise refusal(
            node,
            "a quantized weight with a float input, which it would dequantize at run time",
            "a pair on both operands",
            "quantize its input too, or leave the layer in fp16",
        )
    if len(formats) > 1:
        raise refusal(node, f"operands in {' and '.join(sorted(map(word, formats)))}", "one format", "quantize both alike")
    for index, pair in enumerate(pairs):
        if pair is not None and graph.is_stored_weight(pair):
            _check_axis(graph, node, pair, index)


def check_readers(graph: ExplicitGraph, node: onnx.NodeProto) -> None:
    """Refuse a node, other than those of ``check_layer``, that reads a weight of a format for weights alone."""
    for name in node.input:
        pair = graph.dequantized(name) if name else None
        if pair is not None and graph.type_of(pair.input[0]) in _WEIGHT_ONLY:
            kind = word(graph.type_of(pair.input[0]))
            raise refusal(node, f"it reads the {kind} tensor {name!r}", f"{kind} as the weight of MatMul or Gemm alone", "leave it in fp16")


def is_layer(node: onnx.NodeProto) -> bool:
    """Return whether ``check_layer`` is for the node."""
    return node.op_type in LAYERS and node.domain in ("", "ai.onnx")


def _check_weight_only(
    graph: ExplicitGraph, node: onnx.NodeProto, left: onnx.NodeProto | None, right: onnx.NodeProto | None, kind: str
) -> None:
    if node.op_type not in _PRODUCTS or right is None or not graph.is_stored_weight(right):
        raise refusal(
            node, f"{kind} operands", f"{kind} as the right-hand weight of MatMul or Gemm alone", "leave the layer in fp16 or int8"
        )
    if left is not None:
        found = f"an {kind} weight with an input in {word(graph.type_of(left.input[0]))}, which TensorRT cannot build"
        raise refusal(node, found, "a float input", f"leave the input of {kind} layers in fp16")
    block, axis = integer(right, "block_size"), integer(right, "axis", 1)
    scale = graph.constant(right.input[1])
    blocks = scale.shape[axis] if scale is not None and scale.ndim > 1 else 0
    if block < 1 or blocks < 2:
        found = f"an {kind} weight with block_size {block} and {max(blocks, 1)} block(s)"
        raise refusal(node, found, "two or more blocks along an axis", "use blocks of 32 along the reduction axis, or int8")


def _check_axis(graph: ExplicitGraph, node: onnx.NodeProto, pair: onnx.NodeProto, index: int) -> None:
    scale = graph.constant(pair.input[1])
    if scale is None or scale.size < 2:
        return
    shape = graph.constants[pair.input[0]].dims if pair.input[0] in graph.constants else None
    rank = len(shape) if shape is not None else 2
    if node.op_type == "Conv":
        wanted = 0
    elif node.op_type == "Gemm":
        wanted = 1 - index if integer(node, "transB" if index else "transA") else index
    else:
        wanted = rank - 1 if index else rank - 2
    found = integer(pair, "axis", 1)
    found = found + rank if found < 0 else found
    if found != wanted:
        raise refusal(
            node,
            f"weight scales along axis {found}, which it sums over (it would run weight-only without a word)",
            f"scales along the output channels, axis {wanted}",
            "give each output channel a scale",
        )
