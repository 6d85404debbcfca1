"""The layer report of a TensorRT-RTX build as kernels: parsed from the builder's one verbose message that starts with ``Layers:``.

Each of its lines is one kernel, with the sizes and number formats of all that it reads and writes and the ONNX nodes it came from. It says
what the plan holds; which of several implementations runs is chosen on the GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.errors import BuildError

_TITLE = "Layers:"
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)(?:, Constants: (?P<constants>.*?))?, Outputs: (?P<outputs>.*?)"
    r", (?:TacticName|ParameterType): .*?Metadata: ?(?P<metadata>.*)$"
)
_TENSOR = re.compile(r"Dimensions: \[(?P<shape>[-\d,\s]*)\].*?Datatype: (?P<dtype>\w+)")
_NODE = "[ONNX Layer: "


def kernels_from_messages(messages: Iterable[str]) -> tuple[Kernel, ...]:
    """Return the kernels that a build's messages list; sizes left open by the plan are -1.

    Raises:
        BuildError: There is no report, or a line of it cannot be read.
    """
    report = next((message for message in messages if message.startswith(_TITLE)), None)
    if report is None:
        raise BuildError(
            "layer report: found none in the builder's messages, expected one that starts with 'Layers:'",
            fix="use tensorrt-rtx 1.7, or report the version you have",
        )
    return tuple(_kernel(line) for line in report.splitlines() if line.startswith("Name: "))


def _kernel(line: str) -> Kernel:
    found = _LINE.match(line)
    if found is None:
        raise BuildError(
            f"layer report: found the line {line[:200]!r}, expected Name, LayerType, Inputs, Outputs and Metadata",
            fix="use tensorrt-rtx 1.7, or report the version you have",
        )
    nodes = [part.rpartition("]")[0] for part in found["metadata"].split(_NODE)[1:]]  # what follows the bracket says how it was rewritten
    return Kernel(
        found["name"],
        found["kind"],
        tuple(dict.fromkeys(nodes)),
        _tensors(found["inputs"]),
        _tensors(found["constants"] or ""),
        _tensors(found["outputs"]),
    )


def _tensors(text: str) -> tuple[KernelTensor, ...]:
    return tuple(
        KernelTensor(found["dtype"].lower(), tuple(int(size) for size in found["shape"].split(",") if size.strip()))
        for found in _TENSOR.finditer(text)
    )
