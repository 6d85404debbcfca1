"""Outputs that hold nothing that a model computes from its samples: constants, priors, an input handed through.

They are equal in every engine. Comparing them would only thin out what the other outputs lose, so they are left out, and a note says so.
"""

from __future__ import annotations

import onnx

from calibration.execution.partition import read_names

MOVING = frozenset({"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_OF_SHAPES = frozenset({"Shape", "Size"})


def given_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """Return why each such output tells nothing of an engine, in words that follow its name.

    Case 1. An input, or one that is only moved or cast.
    Case 2. No value of an input reaches it: it is made of constants, and of the shapes of inputs at most.

    Args:
        model: The prepared model; its big weights may be missing.
    """
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    reached = set(inputs)
    for node in model.graph.node:  # in topological order
        if node.op_type not in _OF_SHAPES and not reached.isdisjoint(read_names(node)):
            reached.update(node.output)
    found = {}
    for value in model.graph.output:
        name = value.name
        while (node := producer.get(name)) is not None and node.op_type in MOVING:
            name = node.input[0]
        if name in inputs:  # case 1
            found[value.name] = f"is the input '{name}' handed through"
        elif value.name not in reached:  # case 2
            found[value.name] = "is the same for all samples: no value of an input reaches it"
    return found
