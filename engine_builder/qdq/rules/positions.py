"""Which nodes compute sizes, positions and counts, and so stay in float32 in an engine of 16 bits: those have too few digits to count.

FP16 counts to 2048 one by one, BF16 to 256. A length, a position or an index beyond that is another one; builders refuse some of what is
left, such as a Range whose limit was in 16 bits.

1. *Counted* is what comes of integers of 32 or 64 bits by a Cast to float, and a Range of floats. So is what a node makes of counted
   tensors alone, besides constants and what follows from sizes, such as a table of positions: sines of them, a mask, a length divided and
   rounded down. A node that also reads an activation, or multiplies by a matrix of weights, makes an activation: 16 bits begin there.
2. *Counting* is what makes an integer, the limits of a Range, or the scales of a Resize out of floats: durations that are rounded and
   summed. It goes back through arithmetic and what moves values, to the layer that they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from engine_builder.qdq.graph.slots import has_subgraph

REASON = "it computes sizes, positions or counts, for which 16 bits have too few digits"

_INTEGERS = frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "LSTM", "GRU", "RNN"})
_SIZES = frozenset({"Shape", "Size"})
_RESIZES = frozenset({"Resize", "Upsample"})
_ARITHMETIC = frozenset(  # rule 2
    {
        *("Abs", "Add", "Cast", "Ceil", "Clip", "CumSum", "Div", "Exp", "Floor", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "Round", "Sqrt"),
        *("Sub", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)


def counting_nodes(graph: ir.Graph) -> frozenset[str]:
    """Return the names of the nodes of the main graph that count, by the rules above.

    Args:
        graph: Of a prepared model: float32, topologically sorted, every type noted.
    """
    counted, nodes = _counted(graph)
    return frozenset({*nodes, *_behind(_made_integer(graph), counted)})


def _counted(graph: ir.Graph) -> tuple[frozenset[ir.Value], frozenset[str]]:
    """Return the counted tensors, and the nodes that read or make nothing else (rule 1)."""
    of_sizes = set(graph.initializers.values())
    counted: set[ir.Value] = set()
    nodes: set[str] = set()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in _SIZES or (inputs and all(value in of_sizes for value in inputs)):
            of_sizes.update(node.outputs)
        floats = [value for value in inputs if value.dtype is ir.DataType.FLOAT]
        begins = _begins(node) and not all(value.is_initializer() for value in inputs)
        if has_subgraph(node) or node.op_type in _LAYERS or _multiplies_weights(node):
            continue
        if begins or (any(value in counted for value in floats) and all(value in counted or value in of_sizes for value in floats)):
            counted.update(value for value in node.outputs if value.dtype is ir.DataType.FLOAT)
            nodes.add(str(node.name))
    return frozenset(counted), frozenset(nodes)


def _begins(node: ir.Node) -> bool:
    """Return whether a node turns integers into counted floats, or counts in floats by itself."""
    if not node.outputs or node.outputs[0].dtype is not ir.DataType.FLOAT:
        return False
    source = node.inputs[0] if node.inputs else None
    return node.op_type == "Range" or (node.op_type == "Cast" and source is not None and source.dtype in _INTEGERS)


def _multiplies_weights(node: ir.Node) -> bool:
    """Return whether a node is a product with a constant that sums over more than one number; a column times a row counts on."""
    if node.op_type != "MatMul":
        return False
    left, right = node.inputs
    for value, axis in ((left, -1), (right, -2)):
        if value is not None and value.is_initializer() and value.shape is not None:
            dims = value.shape.numpy()
            return len(dims) < abs(axis) or dims[axis] != 1
    return False


def _made_integer(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the float tensors that integers, ranges and scales are made of."""
    for node in graph:
        if (node.op_type == "Cast" and node.outputs[0].dtype in _INTEGERS) or node.op_type == "Range":
            yield from _floats(node.inputs)
        elif node.op_type in _RESIZES:
            yield from _floats(node.inputs[1:])


def _behind(values: Iterable[ir.Value], counted: frozenset[ir.Value]) -> Iterator[str]:
    """Yield the nodes that the tensors come from, as far as rule 2 goes."""
    waiting, seen = list(values), set(counted)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen or node is None or node.op_type not in _ARITHMETIC:
            continue
        seen.add(value)
        yield str(node.name)
        waiting += _floats(node.inputs)


def _floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    return [value for value in values if value is not None and value.dtype is ir.DataType.FLOAT]
