"""An explicit model as ONNX Runtime must compute it to stand for an engine: float32 inside, every 16-bit tensor rounded to its grid.

ONNX Runtime's CPU provider has few kernels for FP16 and next to none for BF16: it puts casts around the operators that lack one and then
drops each pair of casts that meets, and with it the rounding between two operators. FP16 then looks better than it is, and a model in BF16
does not load. In a model whose types are all float32 it keeps a Cast to 16 bits and back as it stands, which is what is written here.

What is modelled:

1. An operator in a 16-bit type computes in float32, sums included, and rounds what it writes, once. So do the kernels of a GPU, but for
   FP16 accumulation, which a builder may choose on some and which is not modelled.
2. A constant that is added to a product by nothing but that Add belongs to the product's kernel: both together round once.
3. Beyond that nothing is taken to be fused. A kernel that fuses several pointwise operators may keep what lies between them in float32,
   and is then at most better than its simulation.
4. What only moves or selects values of one type has nothing to round.
5. A DequantizeLinear of a format that inputs have too is not rounded: the kernel behind it multiplies the levels and scales the sum. One
   of weights alone is: its kernel multiplies 16-bit weights.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.graph.free_names import Names
from calibration.graph.runtime_view import nodes_of
from calibration.number_formats.precision import Precision
from engine_builder.qdq.graph.qdq_graph import ExplicitGraph

_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_WEIGHT_ONLY = frozenset(precision.element_type for precision in Precision if precision.is_weight_only)
_EXACT = frozenset(  # rule 4
    {
        *(
            "Compress",
            "Concat",
            "DepthToSpace",
            "Expand",
            "Flatten",
            "Gather",
            "GatherElements",
            "GatherND",
            "Identity",
            "Reshape",
            "Slice",
        ),
        *("ScatterElements", "ScatterND", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where"),
        *("Abs", "Max", "MaxPool", "Min", "Neg", "Relu", "Sign"),
    }
)


def simulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model that stands for an explicit one; the explicit one itself where it has nothing in 16 bits.

    Inputs and outputs keep their names and types. Graphs inside nodes are float32 already (``engine_builder.qdq.tensorrt_dialect``, case
    5).

    Args:
        model: A strongly typed model, with its weights.

    Raises:
        BuildError: Its types contradict each other.
    """
    graph = ExplicitGraph(model)
    given = [*model.graph.initializer, *(attribute.t for node in model.graph.node for attribute in node.attribute)]
    if not any(graph.type_of(name) in _HALVES for name in graph.producer) and not any(tensor.data_type in _HALVES for tensor in given):
        return model
    return _Simulation(model, graph).result


class _Simulation:
    """The rewriting of one model."""

    def __init__(self, model: onnx.ModelProto, graph: ExplicitGraph) -> None:
        self._graph = graph
        self._outputs = {value.name for value in model.graph.output}
        values = (value.name for value in (*model.graph.input, *model.graph.initializer))  # those that nothing reads, too
        self._names = Names((*values, *(name for node in nodes_of(model.graph) for name in (node.name, *node.input, *node.output))))
        self._floats: dict[str, str] = {}  # the float32 twin of each 16-bit input or output of the model
        self._nodes: list[onnx.NodeProto] = []
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        for value in model.graph.input:
            if value.type.tensor_type.elem_type in _HALVES:
                self._floats[value.name] = self._names.new(value.name, "float32")
                self._cast(value.name, self._floats[value.name], TensorProto.FLOAT)
        for name in self._outputs:
            if self._graph.type_of(name) in _HALVES:
                self._floats.setdefault(name, self._names.new(name, "float32"))
        for node in model.graph.node:
            self._add(node)
        self.result = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        body = self.result.graph
        body.name = model.graph.name
        body.node.extend(self._nodes)
        body.input.extend(model.graph.input)
        body.output.extend(model.graph.output)
        body.initializer.extend(_as_float(tensor) for tensor in model.graph.initializer)

    def _add(self, node: onnx.NodeProto) -> None:
        clone = onnx.NodeProto()
        clone.CopyFrom(node)
        for index, name in enumerate(clone.input):
            clone.input[index] = self._floats.get(name, name)
        for attribute in clone.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_as_float(attribute.t))
        self._nodes.append(clone)
        if node.op_type == "Cast" and self._graph.type_of(node.output[0]) in (*_HALVES, TensorProto.FLOAT):
            del clone.attribute[:]  # what it rounds is rounded behind it
            clone.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        for index, name in enumerate(node.output):
            kind = self._graph.type_of(name) if name else TensorProto.UNDEFINED
            if kind not in _HALVES:
                continue
            result = self._floats.get(name, name)
            if self._is_rounded(node, name):
                clone.output[index] = self._names.new(name, "exact")
                stored = name if name in self._outputs else self._names.new(name, "stored")
                self._cast(clone.output[index], stored, kind)
                self._cast(stored, result, TensorProto.FLOAT)
            else:
                clone.output[index] = result
                if name in self._outputs:
                    self._cast(result, name, kind)

    def _is_rounded(self, node: onnx.NodeProto, output: str) -> bool:
        """Return whether the node's kernel rounds an output of 16 bits."""
        kind = self._graph.type_of(output)
        if node.op_type == "Cast":
            return self._graph.type_of(node.input[0]) != kind
        if node.op_type == "DequantizeLinear":  # rule 5
            return self._graph.type_of(node.input[0]) in _WEIGHT_ONLY
        if node.op_type in ("Constant", "ConstantOfShape", *_EXACT):  # rule 4
            return False
        if node.op_type == "MatMul" and output not in self._outputs:  # rule 2
            readers = self._readers.get(output, [])
            return not (len(readers) == 1 and readers[0].op_type == "Add" and any(map(self._graph.is_constant, readers[0].input)))
        return True

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], name=self._names.new(target, "Cast"), to=kind))


def _as_float(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a constant in float32 where it has 16 bits, else as it is."""
    if tensor.data_type not in _HALVES:
        return tensor
    return numpy_helper.from_array(np.asarray(numpy_helper.to_array(tensor)).astype(np.float32), tensor.name)
