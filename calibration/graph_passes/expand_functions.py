"""Replaces operators by those that ONNX defines them by, for a target whose builder lacks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import onnx
import onnx.inliner

from calibration.errors import InvalidModelError
from calibration.graph.opset import STANDARD_DOMAINS, opset_version
from calibration.graph.type_inference import inferred


def expand(model: onnx.ModelProto, operators: Collection[str], notes: list[str]) -> onnx.ModelProto:
    """Return the weightless copy ``model``, which may be changed, with the bodies of the operators in their place.

    Args:
        model: The weightless copy of a model at the opset that it is to have.
        operators: Of the standard; those that ONNX defines by others.
        notes: Told what was replaced.

    Raises:
        InvalidModelError: onnx cannot replace one of them.
    """
    nodes = [node for node in model.graph.node if node.op_type in operators and node.domain in STANDARD_DOMAINS]
    if not nodes:
        return model
    found = Counter(node.op_type for node in nodes)
    opset = opset_version(model)
    for node in nodes:  # a body reads its operator's attributes, those that are left out too
        given = {attribute.name for attribute in node.attribute}
        defaults = onnx.defs.get_schema(node.op_type, opset, "").attributes.values()
        node.attribute.extend(one.default_value for one in defaults if one.name not in given and one.default_value.type)
    typed = inferred(model)
    listed = {value.name for value in typed.graph.input}
    constants = [tensor for tensor in typed.graph.initializer if tensor.name not in listed]
    typed.graph.value_info.extend(onnx.helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in constants)
    try:
        model = onnx.inliner.inline_selected_functions(typed, [("", operator) for operator in sorted(found)], inline_schema_functions=True)
    except Exception as exc:  # the C++ inliner raises RuntimeError and its own kinds
        raise InvalidModelError(
            f"model: {', '.join(sorted(found))} cannot be replaced by the operators that ONNX defines it by: {exc}",
            fix="Export the model without it.",
        ) from exc
    notes.extend(f"{number} {name} replaced by the operators that ONNX defines it by" for name, number in sorted(found.items()))
    return model
