"""Reads a model with NVIDIA's parser, and says which node it refuses; nothing is built.

The module is an argument: ``tensorrt`` or ``tensorrt_rtx``. The parser stops at the first node that it refuses, and neither builds nor
times anything: a model is read in the time that it takes to load its weights.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from engine_builder.backends.base import RefusedNode
from engine_builder.backends.nvidia.hooks import DRIVER_FIX, process_logger, without_driver_noise
from engine_builder.config.value_range import MOST_VALUES
from engine_builder.errors import BuildError, RefusedModelError

REPLACE_FIX = "replace the node in the model, or use the target 'onnxruntime-cpu', which has every operator that onnxruntime has"

_MOST_NODES = 5
_UNKNOWN = ("", "false")  # the condition that failed, where the parser has nothing else to say
_PLUGIN = re.compile(r"(?i)\bplugin\b|\bcreator\b")  # for an operator that it does not know it looks for a plugin
_QUOTED = re.compile(r'.+ && ("[^"]*"(?:\s*"[^"]*")*)')  # a condition, which may compare texts, and what it means, in pieces
_PIECE = re.compile(r'"([^"]*)"')
_MOST_WORDS = 400  # characters of NVIDIA's own words
_NOISE = (  # what its messages hold besides the reason
    re.compile(r"^Invalid Node - \S+ "),
    re.compile(r"\bITensor::getDimensions: Error Code \d+: API Usage Error "),
    re.compile(r"\bAssertion failed: (false: )?"),
    re.compile(r"^\(?[^:]*(?:==|!=|<=|>=|\(\))[^:]*: (?=[A-Z])"),  # a condition and what it means
)


def refused_nodes(trt: ModuleType, model: Path) -> tuple[RefusedNode, ...]:
    """Return the nodes of a model that TensorRT's parser refuses, the first one in most cases; empty where it takes the model.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        model: The model; its external data lies beside it.

    Raises:
        BuildError: TensorRT does not start.
    """
    log = process_logger(trt)
    with log.messages.lock:
        log.messages.clear()
        builder = new_builder(trt)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        return _unknown_sizes(network) if parser.parse_from_file(str(model)) else _refused(parser)


def new_builder(trt: ModuleType) -> Any:
    """Return a builder.

    Raises:
        BuildError: The library does not start.
    """
    log = process_logger(trt)
    try:
        return trt.Builder(log)
    except TypeError as exc:  # the bindings' way to say that the library returned nothing
        raise BuildError(f"TensorRT {trt.__version__} did not start: {log.messages.complaints() or exc}", fix=DRIVER_FIX) from exc


def parse(trt: ModuleType, parser: Any, model: Path) -> None:
    """Read a model into the network of a parser.

    Raises:
        RefusedModelError: The parser refuses a node of it.
    """
    if parser.parse_from_file(str(model)):
        return
    found = _refused(parser)
    said = "; ".join(f"node {node.name!r} ({node.operator}): {node.reason}" for node in found)
    raise RefusedModelError(
        f"{model.name}: TensorRT {trt.__version__} cannot read it: {said or 'no reason given'}",
        fix=REPLACE_FIX,
        nodes=tuple(node.name for node in found),
    )


def _unknown_sizes(network: Any) -> tuple[RefusedNode, ...]:
    """Return what is wrong with an input that sets sizes (a shape tensor), of which an engine would have to know more than can be told."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor and not 0 <= math.prod(tuple(tensor.shape)) <= MOST_VALUES:
            said = f"the values of its input '{tensor.name}', {tuple(tensor.shape)}, set sizes (a shape tensor)"
            return (RefusedNode("", "", f"{said}, and an engine is built for at most {MOST_VALUES} values, whose number is fixed"),)
    return ()


def _refused(parser: Any) -> tuple[RefusedNode, ...]:
    found = []
    for index in range(min(parser.num_errors, _MOST_NODES)):
        error = parser.get_error(index)
        operator = str(error.node_operator()) or _importer_of(str(error.func()))
        found.append(RefusedNode(str(error.node_name()), operator, reason_in(str(error.desc()))))
    return tuple(found) or (RefusedNode("", "", "no reason given"),)


def _importer_of(function: str) -> str:
    """Return the operator that a function of the parser reads, empty for any other function: some errors name no node."""
    name = function.removeprefix("import")
    return name if onnx.defs.has(name) else ""


def reason_in(message: str) -> str:
    """Return a message of the parser in one line, without its own checks and places in its source."""
    text = without_driver_noise(message)
    for noise in _NOISE:
        text = noise.sub("", text)
    quoted = _QUOTED.fullmatch(text.strip())
    text = ("".join(_PIECE.findall(quoted[1])) if quoted is not None else text).strip()[:_MOST_WORDS]
    return "it does not know this operator" if text in _UNKNOWN or _PLUGIN.search(text) else text
