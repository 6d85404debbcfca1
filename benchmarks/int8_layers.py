"""Counts the layers that a Q/DQ model computes in int8, the same way whoever made it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
MOVES_ONLY = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")  # these keep integers integers


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """Layers of a model, and how many of them read integers on both sides."""

    int8: int  # Conv, Gemm and MatMul
    weighted: int
    int8_adds: int  # sums of two activations
    adds: int


def layer_counts(model: onnx.ModelProto) -> LayerCounts:
    """Return the counts: a layer is int8 if its first two inputs come from DequantizeLinear, directly or through what only moves values."""
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer} | {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    adds = [node for node in model.graph.node if node.op_type == "Add" and constants.isdisjoint(node.input)]
    return LayerCounts(
        sum(_reads_integers(node, made) for node in weighted), len(weighted), sum(_reads_integers(node, made) for node in adds), len(adds)
    )


def _reads_integers(node: onnx.NodeProto, made: dict[str, onnx.NodeProto]) -> bool:
    return all(_is_dequantized(name, made) for name in node.input[:2])


def _is_dequantized(name: str, made: dict[str, onnx.NodeProto]) -> bool:
    node = made.get(name)
    while node is not None and node.op_type in MOVES_ONLY:
        node = made.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"
