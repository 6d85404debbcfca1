"""Brings a model to a recent opset, without functions: what the standard's converter does not know is kept from it, or written out.

1. Functions are inlined, each converted from the opset that it was written in.
2. Operators that no later opset has are written out in ones that all have.
3. Operators that the standard does not have at the model's opset, but onnxruntime has (``LayerNormalization`` before 17), and those of
   other domains, are hidden from the converter and come back as they were. So are those that it misreads, which are then written anew.
4. Where the converter fails nevertheless, the highest opset counts that it reaches, and that Q/DQ pairs per channel need.
"""

from __future__ import annotations

import logging

import onnx
import onnx.inliner
import onnx.version_converter

from calibration.errors import InvalidModelError
from calibration.graph.captures import hand_in_captures
from calibration.graph.opset import STANDARD_DOMAINS, opset_version
from calibration.graph.runtime_view import is_standard, nodes_of, types_of
from calibration.onnx_model.old_operators import is_misread, write_out_misread, write_out_old_operators

logger = logging.getLogger(__name__)

OPSET = 17  # of a prepared model, at least: LayerNormalization needs it
LOWEST_OPSET = 13  # where OPSET cannot be reached: Q/DQ pairs per channel need it
IR_VERSION = 8  # lowest that belongs to OPSET
_SCAN_OPSET = 9  # from which Scan has the form that it still has
_HIDDEN = "onnxruntime.hidden"  # a domain that the converter does not know


def modernize(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """Return the weightless copy ``model``, which may be changed, without functions and at a recent opset.

    Args:
        model: The weightless copy of a model from ``read_model``.
        notes: Told what was changed, in the user's words.

    Raises:
        InvalidModelError: Its functions cannot be inlined, or its opset cannot be converted.
    """
    if model.functions:
        model = inlined(model)
        notes.append("model-local functions inlined")
    used = {node.domain for node in nodes_of(model.graph)} | set(STANDARD_DOMAINS)
    kept = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    for domain in used - set(STANDARD_DOMAINS) - set(kept):  # as onnxruntime takes it
        kept[domain] = 1
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept.items())
    opset = opset_version(model)
    if opset < OPSET:
        model = _converted(model, opset, notes)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without functions (rule 1).

    onnx's inliner converts a function only where it knows the types of what the function reads. Where it fails, functions are converted
    one by one before they are inlined.

    Raises:
        InvalidModelError: They cannot be inlined.
    """
    try:
        return onnx.inliner.inline_local_functions(model, convert_version=True)
    except Exception:  # the C++ inliner raises RuntimeError and its own kinds
        converted = _with_converted_functions(model)
    try:
        return onnx.inliner.inline_local_functions(converted)
    except Exception as exc:  # as above
        raise InvalidModelError(
            f"model: its local functions cannot be inlined: {exc}", fix="Inline them with onnx.inliner before the upload."
        ) from exc


def _with_converted_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with each function at the model's own opset, but for those that the converter cannot take alone."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    opset = opset_version(model)
    for function in result.functions:
        own = next((entry.version for entry in function.opset_import if entry.domain == ""), opset)
        if own >= opset or function.attribute or function.attribute_proto:
            continue
        graph = onnx.GraphProto(name=function.name, node=function.node)
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in function.input)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
        alone = onnx.ModelProto(ir_version=IR_VERSION, graph=graph, opset_import=function.opset_import)
        try:
            converted = onnx.version_converter.convert_version(alone, opset)
        except Exception as exc:  # as above
            logger.info("function %s is left at opset %d: %s", function.name, own, exc)
            continue
        constants = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in converted.graph.initializer]
        del function.node[:], function.opset_import[:]
        function.node.extend([*constants, *converted.graph.node])
        function.opset_import.extend(converted.opset_import)
    return result


def _converted(model: onnx.ModelProto, opset: int, notes: list[str]) -> onnx.ModelProto:
    if opset < _SCAN_OPSET and any(node.op_type == "Scan" for node in nodes_of(model.graph)):
        raise InvalidModelError(
            f"model: Scan of opset {opset} found, which has another form than every later one, expected opset {_SCAN_OPSET} or later",
            fix=f"Export the model again at opset {OPSET}.",
        )
    model.ir_version = max(model.ir_version, IR_VERSION)  # or else the converter would want each initializer listed as an input
    written = write_out_old_operators(model.graph) if opset < LOWEST_OPSET else ()
    if written:
        notes.append(f"{', '.join(written)} written out in operators of later opsets")
    known = list(model.graph.value_info)
    hand_in_captures(model.graph)
    hidden = _hide(model, opset)
    try:
        typed = onnx.shape_inference.infer_shapes(model)
        if hidden:
            typed = _with_runtime_types(typed, _shown(model, hidden))
        reached, result = _highest(typed, opset)
    except Exception as exc:  # the C++ converter raises RuntimeError and its own ConvertError
        raise InvalidModelError(
            f"model: opset {opset} cannot be converted to {OPSET}: {exc}", fix=f"Export the model again at opset {OPSET}."
        ) from exc
    write_out_misread(result.graph, _HIDDEN)
    result = _shown(result, hidden)
    del result.graph.value_info[:]  # the converter gives everything tensor types, sequences too; all is inferred anew
    made = {name for node in result.graph.node for name in node.output}
    result.graph.value_info.extend(value for value in known if value.name in made)
    if reached != opset:
        why = "" if reached == OPSET else f", since onnx's converter does not reach {OPSET}"
        notes.append(f"opset {opset} converted to {reached}{why}")
    return result


def _highest(typed: onnx.ModelProto, opset: int) -> tuple[int, onnx.ModelProto]:
    """Return the highest opset that the converter reaches, OPSET at most, and the model at it (rule 4)."""
    try:
        return OPSET, onnx.version_converter.convert_version(typed, OPSET)
    except Exception:  # as above
        for target in range(OPSET - 1, max(opset, LOWEST_OPSET - 1), -1):
            try:
                return target, onnx.version_converter.convert_version(typed, target)
            except Exception:  # as above: the next lower one may do
                continue
        if opset >= LOWEST_OPSET:
            return opset, typed
        raise


def _hide(model: onnx.ModelProto, opset: int) -> frozenset[str]:
    """Move what the converter must not see to a domain of its own, in place, and return the operators (rule 3)."""
    hidden = set()
    for node in nodes_of(model.graph):
        if node.domain in STANDARD_DOMAINS and (not is_standard("", node.op_type, opset) or is_misread(node, opset)):
            node.domain = _HIDDEN
            hidden.add(node.op_type)
    if hidden:
        model.opset_import.append(onnx.helper.make_opsetid(_HIDDEN, 1))
    return frozenset(hidden)


def _shown(model: onnx.ModelProto, hidden: frozenset[str]) -> onnx.ModelProto:
    """Return the model with the hidden operators in the standard domain again."""
    if not hidden:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in nodes_of(result.graph):
        if node.domain == _HIDDEN:
            node.domain = ""
    kept = [entry for entry in result.opset_import if entry.domain != _HIDDEN]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    return result


def _with_runtime_types(typed: onnx.ModelProto, as_it_was: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the types that onnxruntime knows, and what follows from them: adapters look at shapes."""
    known = {value.name for value in (*typed.graph.value_info, *typed.graph.output)}
    unknown = [name for node in typed.graph.node for name in node.output if name and name not in known]
    for name, kind in types_of(as_it_was, unknown).items():
        typed.graph.value_info.append(onnx.ValueInfoProto(name=name, type=kind))
    return onnx.shape_inference.infer_shapes(typed)
