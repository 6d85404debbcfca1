"""Which products of computed tensors belong to one attention: scores = Q K', P = Softmax(scores), context = P V."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from calibration.graph.layers import Layer, LayerKind

# What stands between the scores and the Softmax, and between the Softmax and the context: scaling, masking, moving.
_CROSSED = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Cast", "Clip", "Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze"})


def attention_groups(model: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the products of each attention, (scores, context) each, in the order of the contexts.

    TensorRT fuses an attention into one kernel, which reads all of Q, K', P and V in 8 bits or none of them.

    Args:
        model: The prepared model.
        layers: Its layers.
    """
    producer = {name: node for node in model.graph.node for name in node.output if name}
    products = {layer.name for layer in layers if layer.kind is LayerKind.ATTENTION_PRODUCT}
    groups = []
    for layer in layers:
        if layer.name not in products:
            continue
        for name in layer.inputs:
            softmax = _upstream(name, producer, {"Softmax"})
            scores = _upstream(softmax.input[0], producer, {"MatMul"}) if softmax is not None else None
            if scores is not None and scores.name in products:
                groups.append((scores.name, layer.name))
                break
    return tuple(groups)


def _upstream(tensor: str, producer: dict[str, onnx.NodeProto], wanted: set[str]) -> onnx.NodeProto | None:
    """Return the nearest node of a wanted operator that ``tensor`` comes from through crossed operators alone."""
    waiting, seen = [tensor], set()
    while waiting:
        node = producer.get(waiting.pop(0))
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in wanted:
            return node
        if node.op_type in _CROSSED:
            waiting.extend(node.input)
    return None
