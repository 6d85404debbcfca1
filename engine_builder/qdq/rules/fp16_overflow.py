"""Which nodes stay in float32: in FP16 engines those whose values do not fit, in all of 16 bits those that are taken in no other type.

FP16 ends at 65504, and below 3e-8 all is zero:

1. *Large.* A tensor with a measured range beyond 65504, or a constant beyond it (infinities are meant and do fit), is large. What reads or
   writes a large tensor is computed in float32. So is what comes out of such a node large, unless its measured range fits or its operator
   bounds it (Softmax, Sigmoid, a comparison, ...): the -3.4e38 of an attention mask thus keeps all from the mask to the Softmax in float32,
   which costs nothing in a fused attention.
2. *Small.* A constant number that FP16 would turn into zero (the 1e-12 of a normalization), and a mean of squares, are computed in float32,
   up to the Div, Reciprocal or Mul that ends the normalization, that one included.

In FP16 and BF16 alike:

3. *Counting.* Sizes, positions and counts: ``positions``.
4. *Lengths.* An LSTM, GRU or RNN with lengths of its sequences, and what feeds it, back to the layers before: NVIDIA's parser masks what
   lies behind the lengths with float32 zeros, and the builder of TensorRT-RTX 1.7 fails on a change of types right in front of the loop.
5. *Echoes* of inputs: ``echoes``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from calibration.number_formats.grids import FP16_MAX
from engine_builder.qdq.graph.qdq_graph import LAYERS
from engine_builder.qdq.rules.echoes import echoing_nodes
from engine_builder.qdq.rules.positions import REASON as COUNTS
from engine_builder.qdq.rules.positions import counting_nodes

_BOUNDING = frozenset(
    {"Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Sin", "Cos", "Softsign", "LayerNormalization", "InstanceNormalization", "Sign"}
)
_ENDING = frozenset({"Div", "Reciprocal", "Mul"})
_MEANS = frozenset({"ReduceMean", "ReduceSum", "GlobalAveragePool"})
_SQUARE_SUMS = frozenset({"ReduceL2", "ReduceSumSquare", "LpNormalization"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_LENGTHS = 4  # place of a recurrent operator's lengths among its inputs
_TWO = 2.0
_NORMALIZATION = "it is part of a normalization, whose squares or small values fp16 does not hold"
_MEASURED_TOO_LARGE = "a tensor beyond the range of fp16"


def float32_in_any_engine(graph: ir.Graph) -> dict[str, str]:
    """Return the reason of every node of the main graph that is in float32 in FP16 and BF16 engines alike (rules 3 to 5), by node name.

    Args:
        graph: Of a prepared model: float32, topologically sorted.
    """
    reasons = {
        **dict.fromkeys(sorted(counting_nodes(graph)), COUNTS),
        **dict.fromkeys(sorted(echoing_nodes(graph)), "it gives an input out as it is"),
    }
    waiting = [node for node in graph if node.op_type in _RECURRENT and len(node.inputs) > _LENGTHS and node.inputs[_LENGTHS] is not None]
    while waiting:
        node = waiting.pop()
        if str(node.name) not in reasons:
            reasons[str(node.name)] = (
                "it is or feeds a recurrent operator with lengths of its sequences, which TensorRT takes in float32 only"
            )
            makers = [value.producer() for value in node.inputs if value is not None]
            waiting += [maker for maker in makers if maker is not None and maker.op_type not in LAYERS]
    return reasons


def float32_nodes(graph: ir.Graph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Return the reason of every node of the main graph that stays in float32 in an FP16 engine (rules 1 and 2), by node name.

    Args:
        graph: Of a prepared model: float32, topologically sorted.
        ranges: (lowest, highest) of the tensors that were measured.
    """
    reasons: dict[str, str] = {}
    large: dict[str, str] = {name: _MEASURED_TOO_LARGE for name, span in ranges.items() if max(map(abs, span)) > FP16_MAX}
    small: set[str] = set()
    for name, value in graph.initializers.items():
        kind = _constant_kind(value)
        if kind == "large":
            large[name] = f"the constant {name!r} is beyond the range of fp16"
        elif kind == "small":
            small.add(name)
    for node in graph:
        inputs = [str(value.name) for value in node.inputs if value is not None]
        outputs = [str(value.name) for value in node.outputs if value.dtype is ir.DataType.FLOAT]
        found = next((name for name in (*inputs, *outputs) if name in large), None)
        if found is not None:  # rule 1
            reasons[str(node.name)] = large[found] if found not in ranges else f"{_MEASURED_TOO_LARGE}: {found!r}"
            if node.op_type not in _BOUNDING:
                large.update((name, large[found]) for name in outputs if name not in ranges)
        square = _square_of(node)
        if any(name in small for name in inputs) or square is not None:  # rule 2
            for part in (node, square or node):
                reasons.setdefault(str(part.name), _NORMALIZATION)
            if node.op_type not in _ENDING or all(name not in small or name in graph.initializers for name in inputs):
                small.update(name for name in outputs if node.op_type not in _BOUNDING)
    return reasons


def _square_of(node: ir.Node) -> ir.Node | None:
    """Return the node that squares what ``node`` takes the mean of, ``node`` itself where it squares too, None where it is no such mean."""
    if node.op_type in _SQUARE_SUMS:
        return node
    source = node.inputs[0] if node.op_type in _MEANS else None
    square = source.producer() if source is not None else None
    if square is None:
        return None
    if square.op_type == "Mul":
        return square if square.inputs[0] is square.inputs[1] else None
    exponent = square.inputs[1].const_value if square.op_type == "Pow" and square.inputs[1] is not None else None
    squares = exponent is not None and exponent.size == 1 and float(exponent.numpy().reshape(-1)[0]) == _TWO
    return square if squares else None


def _constant_kind(value: ir.Value) -> str | None:
    if value.const_value is None or value.const_value.dtype is not ir.DataType.FLOAT or not value.const_value.size:
        return None
    array = np.abs(value.const_value.numpy())
    if float(array.max(where=np.isfinite(array), initial=0.0)) > FP16_MAX:
        return "large"
    return "small" if array.size == 1 and array.max() > 0 and np.float16(array.max()) == 0 else None
