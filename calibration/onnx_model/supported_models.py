"""What a model may hold: refuses quantized models, operators outside the standard, and inputs that cannot be fed."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
import onnxruntime

from calibration.errors import InvalidModelError
from calibration.graph.opset import STANDARD_DOMAINS, opset_version
from calibration.graph.runtime_view import MACHINE_DOMAINS, has_operator
from calibration.onnx_model.foreign_types import is_foreign

MAX_NODES = 1_000_000
_LOWEST_OPSET = 7  # below, onnxruntime promises nothing
_QUANTIZED_OPS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "MatMulNBits",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MulInteger",
        "ReduceSumInteger",
        "GatherBlockQuantized",
    }
)
_QUANTIZED_PREFIXES = (
    *("QLinear", "QAttention", "QGemm", "QEmbed", "QMoE", "QOrdered", "DynamicQuantize", "MatMulInteger", "MatMulBlockQuantized"),
    *("QuantizeBFP", "QuantizeWithOrder", "DequantizeBFP", "DequantizeWithOrder"),
)
_FEEDABLE = frozenset(
    onnx.TensorProto.DataType.Value(name)
    for name in ("FLOAT", "FLOAT16", "DOUBLE", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
)
_NARROW_TYPES = {
    value: name.lower()
    for name, value in onnx.TensorProto.DataType.items()
    if name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2", "FLOAT6"))
}


def check_supported(model: onnx.ModelProto) -> None:
    """Refuse a model that cannot be optimized; see the functions below for what and why.

    Raises:
        InvalidModelError: With the first thing found.
    """
    _check_versions(model)
    graphs = tuple(_graphs(model.graph))
    if not model.graph.node:
        raise InvalidModelError("model: the graph has no nodes", fix="Export the whole network, not only its weights.")
    _check_functions(model)
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in _nodes_in(function.node))]
    _check_not_quantized(nodes, graphs)
    _check_operators(model, nodes)
    if any(graph.sparse_initializer for graph in graphs) or any(
        attribute.name.startswith("sparse_value") for node in nodes for attribute in node.attribute
    ):
        raise InvalidModelError(
            "model: holds sparse weights (sparse_initializer), expected dense ones",
            fix="Export the model with dense weights (for PyTorch: call .to_dense() first).",
        )
    _check_interface(model.graph)


@functools.cache
def onnxruntime_loads(*, ir_version: int, opset: int) -> bool:
    """Return whether the installed onnxruntime knows this IR and opset version, by loading a model of one Identity."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    probe = onnx.helper.make_model(graph, ir_version=ir_version, opset_imports=[onnx.helper.make_opsetid("", opset)])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions share no base class below Exception
        return False
    return True


def _check_versions(model: onnx.ModelProto) -> None:
    opset = opset_version(model)
    newest_opset, newest_ir = onnx.defs.onnx_opset_version(), int(onnx.IR_VERSION)
    if opset == 0:
        raise InvalidModelError(
            "model: imports no standard operator set (opset_import is empty)", fix="Export the model at opset 17 or later."
        )
    if opset < _LOWEST_OPSET:
        raise InvalidModelError(f"model: opset {opset} found, {_LOWEST_OPSET} or later expected", fix="Export the model again at opset 17.")
    while newest_opset > _LOWEST_OPSET and not onnxruntime_loads(ir_version=8, opset=newest_opset):
        newest_opset -= 1
    if opset > newest_opset:
        raise InvalidModelError(
            f"model: opset {opset} found, {newest_opset} is the newest that onnxruntime {onnxruntime.__version__} supports",
            fix=f"Export the model at opset {min(newest_opset, 17)}.",
        )
    while newest_ir > 3 and not onnxruntime_loads(ir_version=newest_ir, opset=7):
        newest_ir -= 1
    if model.ir_version > newest_ir:
        raise InvalidModelError(
            f"model: IR version {model.ir_version} found, {newest_ir} is the newest that onnxruntime {onnxruntime.__version__} supports",
            fix=f"Load the file with the onnx package, set model.ir_version = {min(newest_ir, 10)} and save it again.",
        )


def _check_functions(model: onnx.ModelProto) -> None:
    """Refuse functions of the model's own that call each other in a circle, or hold more nodes together than anything could be made of.

    A few bytes are enough for 2^30 nodes: each function calls the next one twice.
    """
    own = {(function.domain, function.name, function.overload): function for function in model.functions}

    def calls(nodes: Iterable[onnx.NodeProto]) -> tuple[int, Counter[tuple[str, str, str]]]:
        """Return how many nodes there are, and how often each function is called."""
        kinds = Counter((node.domain, node.op_type, node.overload) for node in _nodes_in(nodes))
        return kinds.total(), Counter({kind: count for kind, count in kinds.items() if kind in own})

    called = {kind: calls(function.node) for kind, function in own.items()}
    try:
        order = tuple(TopologicalSorter({kind: tuple(inner) for kind, (_, inner) in called.items()}).static_order())
    except CycleError as exc:
        name = exc.args[1][0][1]
        raise InvalidModelError(
            f"model: its function '{name}' calls itself, by itself or by others", fix="Export the model again."
        ) from exc
    held: dict[tuple[str, str, str], int] = {}  # nodes of each function, those of the functions that it calls in their place
    for kind in order:
        count, inner = called[kind]
        held[kind] = count + sum(times * held[one] for one, times in inner.items())
    count, inner = calls(model.graph.node)
    total = count + sum(times * held[one] for one, times in inner.items())
    if total > MAX_NODES:
        raise InvalidModelError(
            f"model: has more than {MAX_NODES} nodes with its functions in the place of their calls", fix="Export a smaller network."
        )


def _check_not_quantized(nodes: Iterable[onnx.NodeProto], graphs: Iterable[onnx.GraphProto]) -> None:
    original = "Upload the float model that it was made from; this tool decides the precisions itself."
    for node in nodes:
        if node.op_type in _QUANTIZED_OPS or node.op_type.startswith(_QUANTIZED_PREFIXES):
            raise InvalidModelError(
                f"model: is already quantized: node {_label(node)} is a {node.op_type}, expected a float model", fix=original
            )
    for graph in graphs:
        for tensor in graph.initializer:
            if tensor.data_type in _NARROW_TYPES:
                raise InvalidModelError(
                    f"model: is already quantized: weight '{tensor.name}' is {_NARROW_TYPES[tensor.data_type]}, expected a float model",
                    fix=original,
                )


def _check_operators(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    opset = opset_version(model)
    local = {(function.domain, function.name) for function in model.functions}
    for node in nodes:
        if (node.domain, node.op_type) in local:
            continue
        if node.domain in MACHINE_DOMAINS:
            raise InvalidModelError(
                f"model: node {_label(node)} uses operator '{node.op_type}' of the domain '{node.domain}', which onnxruntime's graph "
                "optimizer wrote for one machine",
                fix="Upload the model as it was before onnxruntime optimized it.",
            )
        if node.domain not in STANDARD_DOMAINS and not has_operator(node.domain, node.op_type, 1):
            raise InvalidModelError(
                f"model: node {_label(node)} uses operator '{node.op_type}' of the custom domain '{node.domain}', "
                f"which onnxruntime {onnxruntime.__version__} does not have",
                fix="Export without custom operators, or replace them by operators of ONNX or onnxruntime; libraries are not loaded.",
            )
        if node.domain in STANDARD_DOMAINS and not onnx.defs.has(node.op_type, opset) and not has_operator("", node.op_type, opset):
            raise InvalidModelError(
                f"model: node {_label(node)} uses operator '{node.op_type}', which ONNX opset {opset} does not have",
                fix="Export at an opset that has the operator, or replace it by standard ONNX operators.",
            )


def _check_interface(graph: onnx.GraphProto) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if not inputs:
        raise InvalidModelError("model: has no inputs, expected at least one", fix="Export the model with its inputs as graph inputs.")
    if all(is_foreign(value) for value in graph.output):
        found = ", ".join(f"'{value.name}'" for value in graph.output)
        raise InvalidModelError(
            f"model: every output holds text, a sequence, a map or an optional value ({found}), expected a tensor of numbers to compare",
            fix="Export the model with its scores as an output too (for scikit-learn: to_onnx(..., options={'zipmap': False})).",
        )
    outputs = [value for value in graph.output if not is_foreign(value)]
    for role, values in (("input", inputs), ("output", outputs)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                raise InvalidModelError(
                    f"{role} '{value.name}': is a {(kind or 'value without type').removesuffix('_type')}, expected a tensor",
                    fix="Export the model with tensor inputs and outputs only.",
                )
            element = value.type.tensor_type.elem_type
            if element not in _FEEDABLE:
                kind = onnx.TensorProto.DataType.Name(element).lower()
                raise InvalidModelError(
                    f"{role} '{value.name}': element type {kind} found, expected a number type that numpy has",
                    fix="Export the model with float32, float16, integer or bool inputs and outputs.",
                )
    if all(value.type.tensor_type.HasField("shape") and not value.type.tensor_type.shape.dim for value in inputs):
        raise InvalidModelError(
            f"input '{inputs[0].name}': is a scalar, and no other input has an axis; one that takes samples expected",
            fix="Export the model with its data as an input that has a batch axis.",
        )


def _label(node: onnx.NodeProto) -> str:
    return f"'{node.name}'" if node.name else f"that makes '{next(iter(node.output), '')}'"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from _graphs(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node


def _nodes_in(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
