"""The pass that gives every node its float type, with Casts where types meet (cases 5 to 7 of ``engine_builder.qdq.tensorrt_dialect``)."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.errors import BuildError
from engine_builder.qdq.graph.slots import has_subgraph, input_type, output_type

ARRAY_TYPES: Mapping[ir.DataType, np.dtype[np.generic]] = {
    ir.DataType.FLOAT: np.dtype(np.float32),
    ir.DataType.FLOAT16: np.dtype(np.float16),
    ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
_WORDS = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}


class ConvertFloats(ir.passes.InPlacePass):
    """Computes each node of the main graph in the type given for it; graph inputs and outputs keep their types.

    Requires: a graph whose floats are float32, with every value's type noted, and unique node names. Ensures: no node reads a float in
    another type than its own, but for inputs that its operator has in float32 alone; graphs inside nodes stay float32.
    """

    def __init__(self, types: Mapping[str, ir.DataType], names: Names) -> None:
        """Keep the type of each node, by name: FLOAT, FLOAT16 or BFLOAT16; a node that is missing stays in float32."""
        self._types = types
        self._names = names
        self._made: dict[ir.Value, ir.DataType] = {}
        self._versions: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Retype what nodes make, then what they read, then the graph's outputs."""
        graph, opset = model.graph, model.opset_imports[""]
        nodes = tuple(graph)
        self._check_types(nodes)
        floats = {value for value in graph.inputs if value.dtype is ir.DataType.FLOAT}
        for node in nodes:
            for index, value in enumerate(node.outputs):
                if value.dtype is ir.DataType.FLOAT:
                    floats.add(value)
                    self._made[value] = output_type(node, index, self._kind(node), opset)
        uses = [
            (node, index, value, input_type(node, index, self._kind(node), opset))
            for node in nodes
            for index, value in enumerate(node.inputs)
            if value is not None and (value in floats or _is_float_constant(value, graph))
        ]
        inner = [node for node in graph.all_nodes() if node.graph is not graph]
        uses += [
            (node, index, value, ir.DataType.FLOAT)
            for node in inner
            for index, value in enumerate(node.inputs)
            if value is not None and (value in floats or _is_float_constant(value, graph))
        ]
        for node, index, value, wanted in uses:
            if wanted is not None and wanted is not self._made.get(value, ir.DataType.FLOAT):
                node.replace_input_with(index, self._version(graph, value, wanted))
        for node in nodes:
            self._set_attributes(node)
        for value, made in self._made.items():
            value.dtype = made
        self._keep_outputs(graph)
        for name in [name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()]:
            del graph.initializers[name]
        return ir.passes.PassResult(model, modified=any(made is not ir.DataType.FLOAT for made in self._made.values()))

    def _kind(self, node: ir.Node) -> ir.DataType:
        return ir.DataType.FLOAT if has_subgraph(node) else self._types.get(str(node.name), ir.DataType.FLOAT)

    def _check_types(self, nodes: tuple[ir.Node, ...]) -> None:
        for node in nodes:
            unknown = next((value for value in node.outputs if value.name and value.type is None), None)
            if unknown is not None:
                raise BuildError(
                    f"node {node.name!r} ({node.op_type}): the type of its output {unknown.name!r} is unknown, so it cannot be cast",
                    fix="simplify the model, or export it with shape inference",
                )

    def _version(self, graph: ir.Graph, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """Return ``value`` in another type: a converted constant, or a Cast behind its producer."""
        key = (value, wanted)
        if key not in self._versions:
            self._versions[key] = (
                _converted(graph, value, wanted, self._names) if value.is_initializer() else self._cast(graph, value, wanted)
            )
        return self._versions[key]

    def _cast(self, graph: ir.Graph, value: ir.Value, wanted: ir.DataType, name: str | None = None) -> ir.Value:
        tensor = name or str(value.name)
        cast = ir.node("Cast", [value], attributes={"to": wanted}, name=self._names.new(tensor, f"Cast_{_WORDS[wanted]}"))
        result = cast.outputs[0]
        result.name = name or self._names.new(tensor, _WORDS[wanted])
        result.dtype, result.shape = wanted, value.shape
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], cast)
        else:
            graph.insert_after(producer, cast)
        return result

    def _set_attributes(self, node: ir.Node) -> None:
        """Let a Cast or ConstantOfShape make the type that its output has now."""
        made = self._made.get(node.outputs[0]) if node.outputs else None
        if made is None or made is ir.DataType.FLOAT:
            return
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(made))
        elif node.op_type == "ConstantOfShape":
            value = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, dtype=np.float32)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(value.astype(ARRAY_TYPES[made])))

    def _keep_outputs(self, graph: ir.Graph) -> None:
        """End every retyped graph output with a Cast to the type that the user declared, under the user's name."""
        finished: dict[ir.Value, ir.Value] = {}
        for index, value in enumerate(graph.outputs):
            made = self._made.get(value, ir.DataType.FLOAT)
            if made is ir.DataType.FLOAT:
                continue
            if value not in finished:
                name = str(value.name)
                value.name = self._names.new(name, _WORDS[made])
                finished[value] = self._cast(graph, value, ir.DataType.FLOAT, name)
            graph.outputs[index] = finished[value]


def _is_float_constant(value: ir.Value, graph: ir.Graph) -> bool:
    return (
        value.is_initializer() and value.graph is graph and value.const_value is not None and value.const_value.dtype is ir.DataType.FLOAT
    )


def _converted(graph: ir.Graph, value: ir.Value, wanted: ir.DataType, names: Names) -> ir.Value:
    assert value.const_value is not None
    array = np.asarray(value.const_value.numpy())
    with np.errstate(over="ignore"):  # infinities are meant; what else does not fit stays in float32 (fp16_overflow.py)
        narrow = array.astype(ARRAY_TYPES[wanted])
    name = names.new(str(value.name), _WORDS[wanted])
    result = ir.Value(name=name, const_value=ir.tensor(narrow, name=name))
    result.shape, result.dtype = ir.Shape(array.shape), wanted
    graph.register_initializer(result)
    return result
