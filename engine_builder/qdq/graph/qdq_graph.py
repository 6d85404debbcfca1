"""Look-ups in an explicit model, and the error that names what is wrong with one of its nodes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from calibration.graph.opset import opset_version
from calibration.graph.type_inference import inferred
from calibration.graph.weightless import weightless_copy
from engine_builder.errors import BuildError

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class ExplicitGraph:
    """Producers, constants and element types of one model. Read only; subgraphs are not looked into."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Infer every element type.

        Raises:
            BuildError: onnx cannot infer the types, because they contradict each other.
        """
        self.nodes = tuple(model.graph.node)
        self.opset = opset_version(model)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in model.graph.node for name in node.output if name}
        self.declared = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
        self.types = _types(model)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return the values of a constant tensor, None where it is computed."""
        tensor = self.constants.get(name)
        if tensor is None:
            producer = self.producer.get(name)
            values = [attribute.t for attribute in producer.attribute if attribute.name == "value"] if producer is not None else []
            if producer is None or producer.op_type != "Constant" or not values:
                return None
            tensor = values[0]
        return np.asarray(numpy_helper.to_array(tensor))

    def is_constant(self, name: str) -> bool:
        """Return whether the tensor is a constant."""
        producer = self.producer.get(name)
        return name in self.constants or (producer is not None and producer.op_type == "Constant")

    def dequantized(self, name: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that makes the tensor, None where another node does."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def is_stored_weight(self, node: onnx.NodeProto) -> bool:
        """Return whether a DequantizeLinear reads a constant, quantized in the file or by a QuantizeLinear."""
        if self.is_constant(node.input[0]):
            return True
        source = self.producer.get(node.input[0])
        return source is not None and source.op_type == "QuantizeLinear" and self.is_constant(source.input[0])

    def type_of(self, name: str) -> int:
        """Return the element type of a tensor, 0 where it is unknown."""
        return self.types.get(name, TensorProto.UNDEFINED)


def refusal(node: onnx.NodeProto, found: str, expected: str, fix: str) -> BuildError:
    """Return the error that names a node, what was found there, what TensorRT needs, and what to do."""
    return BuildError(f"node {node.name!r} ({node.op_type}): {found}, expected {expected}", fix=fix)


def integer(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    """Return an integer attribute."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def word(kind: int) -> str:
    """Return the name of an element type: float16, int8, ..."""
    return str(TensorProto.DataType.Name(kind)).lower()


def _types(model: onnx.ModelProto) -> dict[str, int]:
    work = weightless_copy(model)
    del work.graph.value_info[:]
    for value in work.graph.output:  # what is declared would hide what is computed
        value.ClearField("type")
    try:
        graph = inferred(work).graph
    except Exception as exc:  # onnx's C++ code raises kinds of its own
        raise BuildError(f"explicit model: its types contradict each other: {exc}", fix="write the explicit model again") from exc
    values: Iterable[onnx.ValueInfoProto] = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}
