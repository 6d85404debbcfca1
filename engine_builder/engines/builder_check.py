"""Asks the target's own builder while the job is inspected whether it takes the model, before anything is measured.

What the builder lacks and ONNX defines by other operators is expanded into those. What is left is the user's to replace: the error names
the node, its operator, the builder's reason, the target that has it, and what to do.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from calibration.graph.layers import find_layers
from calibration.graph.opset import STANDARD_DOMAINS, opset_version
from calibration.graph.runtime_view import is_standard, nodes_of
from calibration.graph.weightless import copy_without, is_big, size_bytes
from calibration.graph_passes.normalize import PreparedModel, prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import save_model
from engine_builder.backends.base import Backend, RefusedNode
from engine_builder.engines.target_operators import check_standard
from engine_builder.errors import BuildError, UnsupportedModelError
from engine_builder.qdq.dialects.base import ExplicitPlan

_LACKING = "a type that it does not have"
_ADVICE_FOR_REASON = {
    "uint8": "Cast uint8 tensors to float32 before this node",
    "shape tensor": "Compute the size of this tensor outside of the model: it depends on the values of an input",
    _LACKING: "Give it the type float32, int32, int64 or bool",
}
_CONSTANT = re.compile(r"Failed to import initializer: (\S+)$")
_BORDER = "Failed to convert ONNX date type"  # sic
_NEVER = frozenset(onnx.TensorProto.DataType.Value(name) for name in ("INT16", "UINT16", "UINT32", "UINT64", "DOUBLE", "STRING"))
_FAILING = frozenset({"Attention"})  # what TensorRT's parser takes and TensorRT-RTX 1.7 then fails to build, or crashes on
_WRONG_BODIES = frozenset({"AffineGrid"})  # whose definition by others fails on a batch of 1: it squeezes that axis away
_MOST_EXPANDED = 8  # operators
_ELSEWHERE = "use the target 'onnxruntime-cpu', which has it"
_ADVICE = {
    "Loop": "Export the loop with a fixed number of steps (a trip count), or unroll it",
    **dict.fromkeys(("If", "Scan"), "Export the model without this branch or loop: fix what decides it, or unroll it"),
    **dict.fromkeys(("DFT", "STFT", "MelWeightMatrix"), "Compute the spectrum before the model, or as a product with constant matrices"),
    "NonMaxSuppression": "End the model before it (boxes and scores are its outputs) and select boxes after the model",
    **dict.fromkeys(
        ("Unique", "Compress", "NonZero"), "Compute this step outside of the model: the size of its result depends on the data"
    ),
    **dict.fromkeys(("Multinomial", "Bernoulli"), "Draw random numbers outside of the model and make them an input"),
    **dict.fromkeys(
        ("StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch", "TfIdfVectorizer", "LabelEncoder"),
        "Keep text outside of the model and feed it numbers",
    ),
}


def prepare_for(backend: Backend, model: onnx.ModelProto, scratch: Path, *, folds: bool = True) -> PreparedModel:
    """Return the prepared model, in a form that the target's builder takes.

    Args:
        backend: Of the target.
        model: A model from ``read_model``.
        scratch: A folder for a temporary file.
        folds: Whether constant factors and offsets around layers go into their weights and biases.

    Raises:
        InvalidModelError: It cannot be prepared, or has no layers, whatever the target.
        UnsupportedModelError: The builder does not take a node of it.
    """
    expanded = _FAILING | _given_up(model) if backend.capabilities.has_own_parser else frozenset()
    first: RefusedNode | None = None
    while True:
        prepared = prepare(model, expanded, folds=folds)
        if backend.capabilities.has_own_parser:
            check_standard(prepared.model, backend.capabilities.target, has_plugins=backend.capabilities.has_plugins)
        find_layers(prepared.model)  # a model without any is refused, whatever the target
        refused = _refused(backend, prepared.model, scratch)
        if not refused and (first is None or _branches(prepared.model) <= _branches(prepare(model).model)):
            return prepared
        first = first or refused[0]
        lacking = {node.operator for node in refused if _has_body(node.operator, opset_version(prepared.model))} - expanded - _WRONG_BODIES
        if not lacking or len(expanded) >= _MOST_EXPANDED:
            raise refusal(backend, _with_name(first, prepared.model), _inside(first.name, prepared.model))
        expanded |= lacking


def refusal(backend: Backend, node: RefusedNode, inside: str = "") -> UnsupportedModelError:
    """Return the error that tells a user which node of the model a target does not take.

    Args:
        backend: Of the target.
        node: The node.
        inside: Which node of the main graph holds it, in words.
    """
    target = backend.capabilities.target
    where = f"node {node.name!r} ({node.operator}){inside}" if node.operator else "the model"
    advice = next((text for words, text in _ADVICE_FOR_REASON.items() if words in node.reason.lower()), None)
    advice = advice or _ADVICE.get(node.operator, "Replace the node by operators that the target has")
    return UnsupportedModelError(f"target {target!r}: its builder does not take {where}: {node.reason}", fix=f"{advice}; or {_ELSEWHERE}.")


def _with_name(node: RefusedNode, model: onnx.ModelProto) -> RefusedNode:
    """Name what the builder complains about without naming a node: an input, a constant and its reader, or an operator."""
    if node.operator and not node.name:
        same = next((one.name for one in model.graph.node if one.op_type == node.operator), "")
        return RefusedNode(same, node.operator, node.reason)
    if _BORDER in node.reason:
        named = (value for value in (*model.graph.input, *model.graph.output) if value.type.tensor_type.elem_type in _NEVER)
        value = next(named, None)
        return node if value is None else RefusedNode("", "", f"{value.name!r} is {_word(value.type.tensor_type.elem_type)}, {_LACKING}")
    found = None if node.operator else _CONSTANT.search(node.reason)
    tensor = next((one for one in model.graph.initializer if found is not None and one.name == found[1]), None)
    reader = next((one for one in model.graph.node if tensor is not None and tensor.name in one.input), None)
    if tensor is None or reader is None:
        return node
    return RefusedNode(reader.name, reader.op_type, f"it reads the constant {tensor.name!r} of {_word(tensor.data_type)}, {_LACKING}")


def _inside(name: str, model: onnx.ModelProto) -> str:
    """Return in words which node of the main graph holds the node ``name``, empty where it lies there itself."""
    nodes = model.graph.node
    holder = next((node for node in nodes if any(name in _names_in(one.g) for one in node.attribute if one.HasField("g"))), None)
    return "" if not name or holder is None or any(node.name == name for node in nodes) else f" inside {holder.name!r} ({holder.op_type})"


def _names_in(graph: onnx.GraphProto) -> set[str]:
    inner = (one.g for node in graph.node for one in node.attribute if one.HasField("g"))
    return {node.name for node in graph.node}.union(*map(_names_in, inner))


def _word(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind)).lower()


def _branches(model: onnx.ModelProto) -> int:
    """Return how many nodes hold graphs of their own: what ONNX defines by those is no help to a builder."""
    return sum(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)


def _given_up(model: onnx.ModelProto) -> frozenset[str]:
    """Return the operators that the standard has given up at the model's opset and defines by others: GroupNormalization at 18."""
    opset = opset_version(model)
    used = {node.op_type for node in nodes_of(model.graph) if node.domain in STANDARD_DOMAINS and _has_body(node.op_type, opset)}
    return frozenset(operator for operator in used if not is_standard("", operator, opset))


def _refused(backend: Backend, prepared: onnx.ModelProto, scratch: Path) -> tuple[RefusedNode, ...]:
    target = backend.capabilities
    if not target.has_own_parser:
        return ()
    path, zeros = scratch / "shown.onnx", scratch / "shown.zeros"
    try:
        shown = _without_weights(prepared, zeros)
        try:
            explicit = target.dialect.explicit(ExplicitPlan(shown, find_layers(prepared), {}, {}, target.scheme, Precision.FP32))
        except BuildError:  # what has no form in the target's dialect, such as sequences, its builder may not take either
            save_model(shown, path)
            found = backend.refused(path)
            if not found:
                raise
            return found
        save_model(explicit, path)
        return backend.refused(path)
    finally:
        for written in (path, zeros):
            written.unlink(missing_ok=True)


def _without_weights(model: onnx.ModelProto, zeros: Path) -> onnx.ModelProto:
    """Return the model with its big weights in a file of zeros, which takes no room on the disk: a parser wants their sizes only."""
    big = [tensor for tensor in model.graph.initializer if is_big(tensor) and tensor.HasField("raw_data")]
    result = copy_without(model, (tensor.name for tensor in big))
    offset = 0  # each has a place of its own: TensorRT tells weights apart by where they lie
    for tensor in big:
        reference = result.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        reference.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", zeros.name), ("offset", str(offset)), ("length", str(size_bytes(tensor)))):
            reference.external_data.add(key=key, value=value)
        offset += size_bytes(tensor)
    with zeros.open("wb") as file:
        file.truncate(offset)
    return result


def _has_body(operator: str, opset: int) -> bool:
    """Return whether ONNX defines an operator by others."""
    if not operator or not onnx.defs.has(operator, opset):
        return False
    schema = onnx.defs.get_schema(operator, opset, "")
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]  # onnx's stubs lack them
