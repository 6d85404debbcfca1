"""Constant folding: what depends on no input is computed once, by onnxruntime, and becomes an initializer."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import onnxruntime

from calibration.errors import InvalidModelError

_GROWTH_BYTES = 2**20  # a result may be this much bigger than what it is made of
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"})


def fold_constants(model: ir.Model) -> int:
    """Replace nodes of the main graph that depend on no input by initializers, in place; return how many.

    Shapes must have been inferred, and every node must be of use. Rules:
        1. Shape and Size of a tensor with fixed dimensions are constants.
        2. A node whose inputs are all initializers or outputs of such nodes is a constant, unless it is random, holds a subgraph,
           makes a graph output, or would grow the model by more than 1 MiB.
    """
    return _fold_shapes(model.graph) + _fold_nodes(model)


def remove_no_ops(graph: ir.Graph) -> int:
    """Remove Identity nodes and Casts to the type that a tensor already has, in place; return how many.

    One that joins two names which must both stay (graph inputs and outputs) stays too.
    """
    count = 0
    for node in tuple(graph):
        source = node.inputs[0] if _is_no_op(node) else None
        if source is None:
            continue
        if node.outputs[0].is_graph_output():
            maker = source.producer()
            if maker is None or maker.graph is not graph or source.is_graph_output():
                continue
            take_over(graph, source, node)
        else:
            node.outputs[0].replace_all_uses_with(source)
            graph.remove(node, safe=True)
        count += 1
    return count


def take_over(graph: ir.Graph, value: ir.Value, follower: ir.Node) -> None:
    """Let ``value`` take the name and the place of the first output of ``follower``, which is removed."""
    wanted = follower.outputs[0]
    name = wanted.name
    for index, output in enumerate(graph.outputs):
        if output is wanted:
            graph.outputs[index] = value
    wanted.replace_all_uses_with(value)
    value.type, value.shape = wanted.type or value.type, wanted.shape or value.shape
    graph.remove(follower, safe=True)
    wanted.name, value.name = None, name


def _is_no_op(node: ir.Node) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Cast" or node.inputs[0] is None or "to" not in node.attributes:
        return False
    return node.inputs[0].dtype is not None and int(node.inputs[0].dtype) == node.attributes["to"].as_int()


def _fold_shapes(graph: ir.Graph) -> int:
    count = 0
    for node in tuple(graph):
        if node.op_type not in ("Shape", "Size") or node.outputs[0].is_graph_output():
            continue
        source = node.inputs[0]
        if source is None or source.shape is None or not source.shape.is_static():  # rule 1
            continue
        dims = np.asarray(source.shape.numpy(), dtype=np.int64)
        if node.op_type == "Size":
            result = np.asarray(dims.prod(), dtype=np.int64)
        else:
            start = node.attributes["start"].as_int() if "start" in node.attributes else 0
            end = node.attributes["end"].as_int() if "end" in node.attributes else len(dims)
            result = dims[start:end]
        _replace(graph, node.outputs[0], result)
        graph.remove(node, safe=True)
        count += 1
    return count


def _fold_nodes(model: ir.Model) -> int:
    graph = model.graph
    constant: dict[ir.Value, int] = {
        value: value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None
    }
    folded: list[ir.Node] = []
    for node in graph:
        if _is_foldable(node, constant):  # rule 2
            size = sum(_size_bytes(value) or 0 for value in node.outputs)
            constant.update((value, size) for value in node.outputs)
            folded.append(node)
    if not folded:
        return 0
    inside = frozenset(folded)
    frontier = [value for node in folded for value in node.outputs if any(usage.node not in inside for usage in value.uses())]
    for value, result in zip(frontier, _run(model, folded, frontier), strict=True):
        _replace(graph, value, result)
    for node in reversed(folded):
        graph.remove(node, safe=True)
    return len(folded)


def _is_foldable(node: ir.Node, constant: dict[ir.Value, int]) -> bool:
    if node.op_type in _RANDOM or any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return False
    if any(value is not None and value not in constant for value in node.inputs):
        return False
    made_of = sum(constant[value] for value in node.inputs if value is not None)
    for value in node.outputs:
        size = _size_bytes(value)
        if value.is_graph_output() or size is None or size > made_of + _GROWTH_BYTES:
            return False
    return True


def _size_bytes(value: ir.Value) -> int | None:
    if (
        not isinstance(value.type, ir.TensorType)
        or value.dtype in (None, ir.DataType.STRING)
        or value.shape is None
        or not value.shape.is_static()
    ):
        return None
    return math.ceil(math.prod(value.shape.numpy()) * value.type.dtype.itemsize)


def _run(model: ir.Model, nodes: list[ir.Node], outputs: list[ir.Value]) -> list[np.ndarray]:
    """Return the values of ``outputs``, which ``nodes`` compute from initializers."""
    proto = ir.to_proto(
        ir.Model(ir.Graph([], [], nodes=[], opset_imports=model.graph.opset_imports, name="constants"), ir_version=max(model.ir_version, 8))
    )
    needed: dict[str, ir.Value] = {}
    for node in nodes:
        proto.graph.node.append(ir.to_proto(node))
        proto.graph.node[-1].name = ""  # onnxruntime refuses a name that several nodes have
        for value in node.inputs:
            if value is not None and value.is_initializer() and value.name is not None:
                needed[value.name] = value
    for name, value in needed.items():
        tensor = proto.graph.initializer.add()
        assert value.const_value is not None
        tensor.CopyFrom(ir.to_proto(value.const_value))
        tensor.name = name
    proto.graph.output.extend(ir.to_proto(value) for value in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(result) for result in session.run(None, {})]
    except Exception as exc:  # onnxruntime's exceptions share no base class below Exception
        raise InvalidModelError(
            f"model: its constant part cannot be computed by onnxruntime: {exc}",
            fix="Check that the model runs in onnxruntime, or export it again with constant folding.",
        ) from exc


def _replace(graph: ir.Graph, value: ir.Value, result: np.ndarray) -> None:
    tensor = ir.Tensor(np.ascontiguousarray(result).reshape(result.shape), name=value.name)
    name = value.name
    value.name = None
    constant = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(result.shape), const_value=tensor)
    graph.register_initializer(constant)
    value.replace_all_uses_with(constant)
