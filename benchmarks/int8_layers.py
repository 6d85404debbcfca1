"""Counts the layers that a Q/DQ model computes in int8, the same way whoever made it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

WEIGHTED = ("Conv", "Gemm", "MatMul")
MOVES_ONLY = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")  # these keep integers integers


KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearAdd")  # integer, of such layers


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """Layers of a model, and how many of them read integers on both sides."""

    int8: int  # Conv, Gemm and MatMul
    weighted: int
    int8_adds: int  # sums of two activations
    adds: int
    kernels: int  # integer kernels that onnxruntime finds for all these: some Q/DQ patterns it can only run as float between conversions


def layer_counts(path: Path) -> LayerCounts:
    """Return the counts of a file.

    A layer is int8 if its first two inputs come from DequantizeLinear, directly or through what only moves values. Kernels are counted in
    the graph that onnxruntime makes of the file on this processor.
    """
    model = onnx.load(path)
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer} | {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    adds = [node for node in model.graph.node if node.op_type == "Add" and constants.isdisjoint(node.input)]
    quantized, quantized_adds = (sum(_reads_integers(node, made) for node in nodes) for nodes in (weighted, adds))
    return LayerCounts(quantized, len(weighted), quantized_adds, len(adds), _integer_kernels(path))


def _integer_kernels(path: Path) -> int:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it warns that such a file fits this machine alone
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return sum(node.op_type in KERNELS for node in onnx.load(optimized).graph.node)


def _reads_integers(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto]) -> bool:
    return all(_origin(name, made).op_type == "DequantizeLinear" for name in node.input[:2])


def _origin(name: str, made: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto:
    """Return the node that a tensor comes from, past what only moves values; an empty one for inputs and constants."""
    node = made.get(name, onnx.NodeProto())
    while node.op_type in MOVES_ONLY:
        node = made.get(node.input[0], onnx.NodeProto())
    return node
