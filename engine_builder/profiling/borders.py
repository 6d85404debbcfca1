"""The borders of a model on a runtime with layouts: which form each layer writes and reads, while float and while quantized.

ONNX Runtime keeps the tensors of float convolutions in blocks of channels ("NCHWc"), and of what can follow them in that layout. Its
integer convolutions take their channels last. Whatever else there is takes tensors as they are in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Scheme
from engine_builder.qdq.rules.placement import MOVING_OPS
from engine_builder.search.times.borders import Border, Reader
from engine_builder.search.times.layouts import Layout

_BLOCK = 16  # channels; a convolution of fewer inputs reads them as they are
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# What runs on blocked tensors, if all that it reads is blocked.
_ACTIVATIONS = ("Relu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_FOLLOWS = frozenset((*_ACTIVATIONS, *_POOLS, "Add", "Sum", "Mul", "Concat", "BatchNormalization", "Resize"))


def borders_between(model: onnx.ModelProto, layers: Sequence[Layer], scheme: Scheme, sizes: Mapping[str, int]) -> tuple[Border, ...]:
    """Return the tensors that layers write or read; what only moves a tensor (Reshape, MaxPool, ...) counts as the tensor itself.

    Args:
        model: The prepared model.
        layers: Its layers.
        scheme: How the target quantizes.
        sizes: Elements of each tensor in one timed call.
    """
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    moved = {node.output[0]: node.input[0] for node in graph.node if node.op_type in MOVING_OPS}

    def origin(name: str) -> str:
        while name in moved:
            name = moved[name]
        return name

    blocked = _blocked(graph, weights)
    writers = {layer.output: layer for layer in layers if layer.op_type in scheme.quantized_outputs}
    readers: dict[str, list[Reader]] = {}
    for layer in layers:
        for name in dict.fromkeys(origin(tensor) for tensor in layer.inputs):
            readers.setdefault(name, []).append(Reader(layer.name, _read_as_floats(layer, weights), _read_as_integers(layer)))
    others = _others(graph, layers, blocked, origin_of={name: origin(name) for node in graph.node for name in node.input if name})
    for value in graph.output:
        others.setdefault(origin(value.name), set()).add(Layout.FLOATS)
    return tuple(
        Border(
            writers[name].name if name in writers else None,
            Layout.BLOCKED_FLOATS if name in blocked else Layout.FLOATS,
            Layout.INTEGERS_CHANNELS_LAST if name in blocked else Layout.INTEGERS,
            tuple(readers.get(name, ())),
            tuple(sorted(others.get(name, ()), key=lambda form: -1 if form is None else form)),
            sizes.get(name, 0),
        )
        for name in dict.fromkeys((*readers, *writers))
    )


def _blocked(graph: onnx.GraphProto, weights: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Return the tensors that the float engine has in blocks of channels."""
    found: set[str] = set()
    for node in graph.node:
        computed = [name for name in node.input if name and name not in weights]
        is_convolution = node.op_type == "Conv" and len(weights.get(node.input[1], ())) == 4
        if is_convolution or (node.op_type in _FOLLOWS and computed and found.issuperset(computed)):
            found.update(node.output)
    return frozenset(found)


def _read_as_floats(layer: Layer, weights: Mapping[str, tuple[int, ...]]) -> Layout | None:
    if layer.op_type == "Conv":
        shape = weights.get(layer.weight or "", ())
        is_wide = len(shape) == 4 and (layer.groups > 1 or shape[1] >= _BLOCK)
        return Layout.BLOCKED_FLOATS if is_wide else Layout.FLOATS
    return None if layer.op_type == "Add" else Layout.FLOATS


def _read_as_integers(layer: Layer) -> Layout | None:
    if layer.op_type == "Add":
        return None
    return Layout.INTEGERS_CHANNELS_LAST if layer.op_type in _CONVOLUTIONS else Layout.INTEGERS


def _others(
    graph: onnx.GraphProto, layers: Sequence[Layer], blocked: frozenset[str], origin_of: Mapping[str, str]
) -> dict[str, set[Layout | None]]:
    """Return the forms in which each tensor is read by what is no layer."""
    inside = {node for layer in layers for node in layer.nodes}
    found: dict[str, set[Layout | None]] = {}
    for node in graph.node:
        if node.name not in inside and node.op_type not in MOVING_OPS:
            for name in node.input:
                if name in origin_of:
                    follows = node.op_type in _FOLLOWS and name in blocked
                    found.setdefault(origin_of[name], set()).add(None if follows else Layout.FLOATS)
    return found
