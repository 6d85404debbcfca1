"""The pass that casts uint8 tensors before they are moved: TensorRT takes uint8 at a model's borders, and only a Cast reads it.

A picture that is transposed, cut or padded as uint8 and cast afterwards is cast first and moved then: the same numbers, since every uint8
is a float and an int32 exactly, and an operator here only moves, selects or compares values. They are moved as float32, which becomes the
engine's own float type, where Casts to float32 are all that reads them in the end; else as int32. A tensor that is cast to uint8 to be
moved and given out is cast to int32 first, which cuts fractions off as well, and to uint8 at the end.

So are int8 tensors, of a table of embeddings in eight bits for example, where a constant has that type: TensorRT takes such a constant
before a DequantizeLinear only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import Names

_ALL = (0, None)
_FIRST = (0, 1)
_DATA: Mapping[str, tuple[int, int | None]] = {  # which inputs hold the data of an operator that moves or selects: a slice
    **dict.fromkeys(("Slice", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Tile"), _FIRST),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Split", "DepthToSpace", "SpaceToDepth", "Trilu", "ReverseSequence"), _FIRST),
    **dict.fromkeys(("MaxPool", "ReduceMax", "ReduceMin", "CenterCropPad"), _FIRST),
    **dict.fromkeys(("Concat", "Max", "Min"), _ALL),
    "Where": (1, None),
}
_ALSO_CONSTANT = {"Pad": (0, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2)}  # the places of data, and of what is put among them
_RESIZING = frozenset({"Resize", "Upsample"})
_SELECTING_MODE = "nearest"  # the one that makes no values between others
_COMPARING = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_ARRAYS = {ir.DataType.FLOAT: np.float32, ir.DataType.INT32: np.int32}


def narrow_types(graph: ir.Graph) -> tuple[ir.DataType, ...]:
    """Return the types to cast before tensors of them are moved: uint8, and int8 where a constant of the graph has it."""
    has_int8 = any(value.dtype is ir.DataType.INT8 for value in graph.initializers.values())
    return (ir.DataType.UINT8, ir.DataType.INT8) if has_int8 else (ir.DataType.UINT8,)


class CastBeforeMoves(ir.passes.InPlacePass):
    """Lets operators that move or compare tensors of a narrow type, uint8 or int8, read them cast.

    Requires: every value's type noted, nodes in topological order. Ensures: of the main graph's nodes that move or compare values none
    reads the type; inputs and outputs of the graph keep their types.
    """

    def __init__(self, names: Names, narrow: ir.DataType = ir.DataType.UINT8) -> None:
        """Keep the names in use, and the type."""
        self._names = names
        self._type = narrow
        self._wide: dict[ir.Value, ir.Value] = {}
        self._widened: set[ir.Value] = set()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Widen what is moved, in the order of the nodes, and narrow it again for whoever else reads it."""
        graph = model.graph
        nodes = [node for node in graph if any(node.inputs[place].dtype is self._type for place in _places(node))]  # type: ignore[union-attr]  # _places leaves out what is not there
        if not nodes:
            return ir.passes.PassResult(model, modified=False)
        kind = _type_for(graph, self._type)
        for node in nodes:
            for place in _places(node):
                value = node.inputs[place]
                if value is not None and value.dtype is self._type:
                    node.replace_input_with(place, self._widen(graph, value, kind))
            if node.op_type not in _COMPARING:
                for value in node.outputs:
                    value.dtype = kind
                    self._widened.add(value)
        for value in tuple(self._widened):
            self._narrow(graph, value)
        for value in self._wide:
            maker = value.producer()
            if maker is not None and maker.op_type == "Cast" and not value.uses() and not value.is_graph_output():
                graph.remove(maker, safe=True)
            if value.is_initializer() and not value.uses() and not value.is_graph_output():
                graph.initializers.pop(str(value.name))
        return ir.passes.PassResult(model, modified=True)

    def _widen(self, graph: ir.Graph, value: ir.Value, kind: ir.DataType) -> ir.Value:
        if value not in self._wide:
            name = self._names.new(str(value.name), kind.name.lower())
            if value.is_initializer() and value.const_value is not None:
                wide = ir.Value(name=name, const_value=ir.tensor(value.const_value.numpy().astype(_ARRAYS[kind]), name=name))
                graph.register_initializer(wide)
            else:
                wide = self._cast(graph, self._whole(graph, value), kind, name)
            wide.shape, wide.dtype = value.shape, kind
            self._wide[value] = wide
        return self._wide[value]

    def _whole(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        """Return what a narrow tensor is read from: itself, or an int32 in its place where a Cast inside the graph makes it."""
        maker = value.producer()
        if maker is None or maker.op_type != "Cast" or maker.inputs[0] is None:
            return value
        whole = self._cast(graph, maker.inputs[0], ir.DataType.INT32, self._names.new(str(value.name), "whole"))
        whole.shape, whole.dtype = value.shape, ir.DataType.INT32
        return whole

    def _narrow(self, graph: ir.Graph, value: ir.Value) -> None:
        """Give a widened tensor back in its own type to the readers that are neither Casts nor widened, and to the graph's outputs."""
        others = [
            use for use in value.uses() if use.node.op_type != "Cast" and (use.node.graph is not graph or use.idx not in _places(use.node))
        ]
        if not others and not value.is_graph_output():
            return
        name = str(value.name)
        value.name = self._names.new(name, "wide")
        narrow = self._cast(graph, value, self._type, name)
        narrow.shape, narrow.dtype = value.shape, self._type
        for use in others:
            use.node.replace_input_with(use.idx, narrow)
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = narrow

    def _cast(self, graph: ir.Graph, value: ir.Value, kind: ir.DataType, name: str) -> ir.Value:
        cast = ir.node("Cast", [value], attributes={"to": kind}, name=self._names.new(name, "Cast"))
        cast.outputs[0].name = name
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], cast)
        else:
            graph.insert_after(producer, cast)
        return cast.outputs[0]


def _places(node: ir.Node) -> tuple[int, ...]:
    """Return the places of the data among the inputs of a node that moves, selects or compares them, none of any other node."""
    count = len(node.inputs)
    if node.op_type in _ALSO_CONSTANT:
        places: tuple[int, ...] = tuple(place for place in _ALSO_CONSTANT[node.op_type] if place < count)
    elif node.op_type in _RESIZING:
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else _SELECTING_MODE
        places = (0,) if mode == _SELECTING_MODE else ()
    elif node.op_type in _COMPARING:
        places = tuple(range(count))
    else:
        places = tuple(range(count)[slice(*_DATA[node.op_type])]) if node.op_type in _DATA else ()
    return tuple(place for place in places if node.inputs[place] is not None)


def _type_for(graph: ir.Graph, narrow: ir.DataType) -> ir.DataType:
    """Return FLOAT where Casts to it are all that reads narrow tensors in the end, else INT32, of which every type can be made."""
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.dtype is not narrow:
            continue
        if value.is_graph_output() or any(use.node.op_type in _COMPARING for use in value.uses()):
            return ir.DataType.INT32
        casts = [use.node for use in value.uses() if use.node.op_type == "Cast"]
        if any(cast.attributes["to"].as_int() != int(ir.DataType.FLOAT) for cast in casts):
            return ir.DataType.INT32
    return ir.DataType.FLOAT
