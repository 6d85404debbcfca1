"""Operators that only onnxruntime has, in models for a target that builds its engines with another parser."""

from __future__ import annotations

import onnx

from calibration.errors import InvalidModelError
from calibration.graph.opset import STANDARD_DOMAINS, opset_version
from calibration.graph.runtime_view import is_standard, nodes_of
from calibration.onnx_model.foreign_types import is_foreign


def check_standard(model: onnx.ModelProto, target: str, *, has_plugins: bool = False) -> None:
    """Refuse what is not in the ONNX standard.

    Args:
        model: The prepared model.
        target: The target's name, for the message.
        has_plugins: Whether the target's parser may know operators of other domains; then it is asked, and not here.

    Raises:
        InvalidModelError: An operator of another domain or an output that is no tensor of numbers.
    """
    opset = opset_version(model)
    for node in nodes_of(model.graph):
        if not has_plugins and not is_standard(node.domain, node.op_type, opset):
            of = f" of the domain '{node.domain}'" if node.domain not in STANDARD_DOMAINS else ", which is not in the ONNX standard"
            raise InvalidModelError(
                f"model: node '{node.name}' uses operator '{node.op_type}'{of}: onnxruntime-cpu has it, the target {target} does not",
                fix="Set target to onnxruntime-cpu, or replace the operator by standard ONNX operators, or do its work outside.",
            )
    foreign = next((value.name for value in model.graph.output if is_foreign(value)), None)
    if foreign is not None:
        raise InvalidModelError(
            f"output '{foreign}': holds text, a sequence, a map or an optional value, which the target {target} does not have",
            fix="Set target to onnxruntime-cpu, or export the model without this output.",
        )
