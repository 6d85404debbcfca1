"""Layers: the nodes of a model that may be given a precision of their own."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import onnx

from calibration.errors import InvalidModelError
from calibration.graph.topological_sort import captured_names
from calibration.graph.type_inference import inferred
from calibration.graph.weightless import weightless_copy


class LayerKind(enum.StrEnum):
    """What a layer is to the search."""

    WEIGHTED = "weighted"  # Conv, ConvTranspose, Gemm or MatMul with a constant weight
    RESIDUAL_ADD = "residual_add"  # Add of two computed tensors of one shape
    ATTENTION_PRODUCT = "attention_product"  # MatMul of two computed tensors
    RECURRENT = "recurrent"  # LSTM with constant weights


@dataclass(frozen=True, slots=True)
class Layer:
    """A node that may be given a precision.

    Tensors are names in the prepared model; ``weight`` and ``bias`` are initializers that no other layer uses. A recurrent layer, which has
    two weights, names neither; its output is the first of its outputs that a node reads, or the user.
    """

    name: str  # unique node name
    op_type: str
    kind: LayerKind
    inputs: tuple[str, ...]  # activations that are quantized with the layer: one, or two for sums and products
    weight: str | None
    weight_axis: int | None  # output-channel axis of the weight
    bias: str | None
    output: str  # after a directly following Relu or Clip that nothing else reads the input of
    nodes: tuple[str, ...]  # the layer's node and that activation, in order
    macs: int  # multiply-accumulates for one sample
    weight_count: int  # elements of the weight, 0 without one
    groups: int = 1  # of a convolution


def find_layers(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[Layer, ...]:
    """Return the layers of a prepared model in topological order.

    Rules:
        1. Conv, ConvTranspose, Gemm and MatMul with a constant float32 weight (and a constant bias or none) are WEIGHTED.
        2. A MatMul of two computed float32 tensors is an ATTENTION_PRODUCT.
        3. An Add of two computed float32 tensors of one shape is a RESIDUAL_ADD: not a bias (it broadcasts), not a mask (a Softmax reads
           the sum, perhaps behind a Max, Min, Clip or Where that guards it), and not the inside of an activation function (both inputs are
           made of one and the same tensor element by element).
        4. The output of a layer is that of a Relu, or of a Clip from zero, if that is all that reads the layer.
        5. An LSTM of a computed float32 tensor, with constant float32 weights and batches on the second axis, is RECURRENT.
    Subgraphs (If, Loop) hold no layers.

    Args:
        model: A prepared model.
        shapes: Concrete shape of each graph input, for ``macs`` only; a dimension not given and not fixed counts as 1.

    Raises:
        InvalidModelError: No layer is WEIGHTED or RECURRENT, so there is nothing to optimize.
    """
    view = _View(model, shapes or {})
    layers = [layer for node in model.graph.node if (layer := _layer(node, view)) is not None]
    if not any(layer.kind in (LayerKind.WEIGHTED, LayerKind.RECURRENT) for layer in layers):
        double = any(tensor.data_type == onnx.TensorProto.DOUBLE and len(tensor.dims) > 1 for tensor in model.graph.initializer)
        found = ", ".join(sorted({node.op_type for node in model.graph.node})[:12])
        raise InvalidModelError(
            f"model: no quantizable layer: {_LAYERS} with a constant float32 weight expected (outside of If and Loop), found {found}",
            fix=_EXPORT_FLOAT32 if double else "Check that the whole network was exported and that its weights are in the file.",
        )
    return tuple(layers)


class _View:
    """Look-ups in one model: readers, producers, constants, types and shapes. Read only."""

    def __init__(self, model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        graph = model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output if name}
        self.outputs = {value.name for value in graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in {*node.input, *captured_names(node)}:
                self.readers.setdefault(name, []).append(node)
        self.symbolic = _shapes((*graph.input, *graph.value_info, *graph.output))
        self.types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
        self.concrete = self.symbolic | concrete_shapes(model, shapes)
        first = next((value.name for value in graph.input if value.name in self.concrete), None)
        self.batch = max(_size(self.concrete[first][:1]), 1) if first else 1

    def is_computed_float(self, name: str) -> bool:
        return name not in self.constants and self.types.get(name) == onnx.TensorProto.FLOAT

    def weight(self, name: str) -> onnx.TensorProto | None:
        tensor = self.constants.get(name)
        return tensor if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 0 else None

    def constant_scalar(self, name: str) -> float | None:
        tensor = self.constants.get(name)
        if tensor is None or math.prod(tensor.dims) != 1:  # what is bigger is not read: it may be a weight
            return None
        return float(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])


def _layer(node: onnx.NodeProto, view: _View) -> Layer | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        return _weighted(node, view, activation=0, weight=1)
    if node.op_type == "MatMul":
        left, right = node.input
        for activation, weight in ((0, 1), (1, 0)):
            layer = _weighted(node, view, activation=activation, weight=weight)
            if layer is not None:
                return layer
        if view.is_computed_float(left) and view.is_computed_float(right):  # rule 2
            macs = _size(view.concrete.get(node.output[0], ())) * _size(view.concrete.get(left, ())[-1:])
            return _build(node, view, LayerKind.ATTENTION_PRODUCT, inputs=(left, right), macs=macs)
    if node.op_type == "LSTM":
        return _recurrent(node, view)
    if node.op_type == "Add" and _is_residual(node, view):
        return _build(node, view, LayerKind.RESIDUAL_ADD, inputs=(node.input[0], node.input[1]), macs=0)
    return None


def _weighted(node: onnx.NodeProto, view: _View, *, activation: int, weight: int) -> Layer | None:
    tensor = view.weight(node.input[weight])
    if tensor is None or not view.is_computed_float(node.input[activation]):  # rule 1
        return None
    bias = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    if bias and bias not in view.constants:
        return None
    axis = _weight_axis(node, tensor, weight)
    dims = tuple(tensor.dims)
    output = _size(view.concrete.get(node.output[0], ()))
    if node.op_type == "Conv":
        macs = output * math.prod(dims[1:])
    elif node.op_type == "ConvTranspose":
        macs = _size(view.concrete.get(node.input[0], ())) * math.prod(dims[1:])
    else:
        macs = output * (dims[0] if axis is None else dims[2 * len(dims) - 3 - axis])  # the other one of the last two axes
    return _build(
        node,
        view,
        LayerKind.WEIGHTED,
        inputs=(node.input[activation],),
        macs=macs,
        weight=tensor,
        axis=axis,
        bias=bias or None,
    )


def _recurrent(node: onnx.NodeProto, view: _View) -> Layer | None:
    weights = [view.weight(name) for name in node.input[1:3]]
    read = [name for name in node.output if name and name in view.readers] or [name for name in node.output if name in view.outputs]
    if not view.is_computed_float(node.input[0]) or _attribute(node, "layout") or not read:  # rule 5
        return None
    count = sum(math.prod(tensor.dims) for tensor in weights if tensor is not None)
    if None in weights or not count:
        return None
    steps = _size(view.concrete.get(node.input[0], ())[:2])
    layer = _build(node, view, LayerKind.RECURRENT, inputs=(node.input[0],), macs=steps * count)
    return replace(layer, output=read[0], nodes=(node.name,), weight_count=count)


def _weight_axis(node: onnx.NodeProto, weight: onnx.TensorProto, index: int) -> int | None:
    if node.op_type in ("Conv", "ConvTranspose"):
        return 0 if node.op_type == "Conv" else 1
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB") else 1
    rank = len(weight.dims)
    if rank == 1:
        return None  # a vector has no channels
    return rank - 1 if index == 1 else rank - 2


def _build(
    node: onnx.NodeProto,
    view: _View,
    kind: LayerKind,
    *,
    inputs: tuple[str, ...],
    macs: int,
    weight: onnx.TensorProto | None = None,
    axis: int | None = None,
    bias: str | None = None,
) -> Layer:
    output, nodes = node.output[0], [node.name]
    readers = view.readers.get(output, [])
    if len(readers) == 1 and output not in view.outputs and _is_activation(readers[0], output, view):  # rule 4
        output = readers[0].output[0]
        nodes.append(readers[0].name)
    return Layer(
        name=node.name,
        op_type=node.op_type,
        kind=kind,
        inputs=inputs,
        weight=weight.name if weight is not None else None,
        weight_axis=axis,
        bias=bias,
        output=output,
        nodes=tuple(nodes),
        macs=math.ceil(macs / view.batch),
        weight_count=math.prod(weight.dims) if weight is not None else 0,
        groups=next((item.i for item in node.attribute if item.name == "group"), 1),
    )


def _is_activation(node: onnx.NodeProto, source: str, view: _View) -> bool:
    if node.input[0] != source:
        return False
    if node.op_type == "Relu":
        return True
    bounds = [view.constant_scalar(name) if name else None for name in node.input[1:]]
    highest_known = len(node.input) < len(("input", "min", "max")) or not node.input[2] or bounds[1] is not None
    return node.op_type == "Clip" and len(bounds) > 0 and bounds[0] == 0 and highest_known


def _is_residual(node: onnx.NodeProto, view: _View) -> bool:
    left, right = node.input
    if not (view.is_computed_float(left) and view.is_computed_float(right)):
        return False
    shape, other = view.symbolic.get(left), view.symbolic.get(right)
    if not shape or not other or len(shape) != len(other) or not all(map(_may_equal, shape, other)):
        return False
    if _reaches_softmax(node.output[0], view):
        return False
    return _sources(left, view) != _sources(right, view)  # rule 3


def _reaches_softmax(name: str, view: _View) -> bool:
    """Return whether a Softmax reads a tensor, or what guards against its lowest values."""
    readers = view.readers.get(name, ())
    return any(node.op_type == "Softmax" or (node.op_type in _GUARDS and _reaches_softmax(node.output[0], view)) for node in readers)


def _may_equal(left: int | str | None, right: int | str | None) -> bool:
    """Return whether two dimensions are one size; a fixed size against an unknown one is taken for a broadcast."""
    if left is None or right is None:
        return not isinstance(left, int) and not isinstance(right, int)
    return left == right


def _sources(name: str, view: _View) -> frozenset[str]:
    """Return the tensors that ``name`` is made of element by element."""
    found, open_names, seen = set(), [name], set()
    while open_names:
        current = open_names.pop()
        node = view.producer.get(current)
        if current in seen or current in view.constants:
            continue
        seen.add(current)
        if node is None or node.op_type not in _ELEMENTWISE:
            found.add(current)
        else:
            open_names.extend(node.input)
    return frozenset(found)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[int | str | None, ...]]:
    return {
        value.name: tuple(_dim(dim) for dim in value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return None if dim.dim_param.startswith(_UNKNOWN) else dim.dim_param or None


def concrete_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int | str | None, ...]]:
    """Return the shapes that follow from ``shapes``, inferred on the weightless copy without what is known of the dynamic model."""
    if not shapes:
        return {}
    work = weightless_copy(model)
    del work.graph.value_info[:]
    for value in work.graph.input:
        if value.name in shapes:
            value.type.tensor_type.shape.CopyFrom(
                onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension(dim_value=size) for size in shapes[value.name]])
            )
    for value in work.graph.output:
        value.type.tensor_type.ClearField("shape")
    result = inferred(work, data_prop=True).graph
    return _shapes((*result.input, *result.value_info, *result.output))


def _size(shape: Iterable[int | str | None]) -> int:
    return math.prod(dim for dim in shape if isinstance(dim, int))


_ELEMENTWISE = frozenset(
    {
        "Mul",
        "Add",
        "Sub",
        "Div",
        "Pow",
        "Sqrt",
        "Exp",
        "Log",
        "Neg",
        "Abs",
        "Relu",
        "LeakyRelu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "Tanh",
        "Erf",
        "Softplus",
        "Elu",
        "Gelu",
    }
)
_GUARDS = frozenset({"Max", "Min", "Clip", "Where"})
_LAYERS = "Conv, ConvTranspose, Gemm, MatMul or LSTM"
_EXPORT_FLOAT32 = "Export the model in float32: its weights are float64."
_UNKNOWN = "unk__"  # how onnx's shape inference and tf2onnx name a dimension that they know nothing about
