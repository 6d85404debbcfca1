"""What the inspector says of an engine's layers, in the JSON of TensorRT 11 or of TensorRT 10, from the lines of the real builder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)(?:, Constants: (?P<constants>.*?))?, Outputs: (?P<outputs>.*?)"
    r", (?:TacticName|ParameterType): (?P<tactic>.*?)(?:, StreamId: (?P<stream>\d+))?, Metadata: ?(?P<metadata>.*)$"
)
_TENSOR = re.compile(r"Name: (?P<name>[^,]*), Dimensions: \[(?P<shape>[-\d,\s]*)\].*?Datatype: (?P<dtype>\w+)")
_NODES = re.compile(r"\[ONNX Layer: .*?\]")
_OLD_TYPES = {"correlation": "CaskConvolution", "gemm": "CaskGemmMatrixMultiply", "deconv": "CaskDeconvolutionV2", "kgen": "PointWiseV2"}
_SENTENCES = {
    "Half": "Channel major FP16 format where channel % 8 == 0",
    "Int8": "Thirty-two wide channel vectorized row major Int8 format",
    "Float": "Row major linear FP32",
    "FP8": "Row major linear FP8 format",
    "BFloat16": "Row major linear BF16 format",
}
NOT_SAID = "N/A due to dynamic shapes"

Json = dict[str, object]


def tactics(lines: Sequence[str]) -> list[str]:
    """Return what the builder has to time: each layer's kind with the sizes and types of what it reads and writes."""
    found = [_LINE.match(line) for line in lines]
    return [
        json.dumps([match["kind"], *(_tensors(match[key] or "") for key in ("inputs", "constants", "outputs"))])
        for match in found
        if match is not None
    ]


def layer_names(lines: Sequence[str]) -> list[str]:
    """Return the layers' names, in order."""
    return [match["name"] for match in map(_LINE.match, lines) if match is not None]


def in_profile(name: str, profile: int) -> str:
    """Return what a layer is called in a profile."""
    return f"{name} [profile {profile}]" if profile else name


def engine_information(lines: Sequence[str], form: int, *, are_sizes_known: bool, profiles: int = 1) -> str:
    """Return the JSON.

    Args:
        lines: Of the builder, a layer each.
        form: 10 or 11.
        are_sizes_known: Whether every input has a size: without them version 10 says no formats.
        profiles: How many the engine has; the layers of each are listed.
    """
    found = [match for match in map(_LINE.match, lines) if match is not None]
    told = [_of_10(match, are_sizes_known=are_sizes_known) if form == 10 else _of_11(match) for match in found]
    layers = [{**layer, "Name": in_profile(str(layer["Name"]), index)} for index in range(profiles) for layer in told]
    return json.dumps({"Layers": layers, "Bindings": []})


def _of_11(match: re.Match[str]) -> Json:
    return {
        "Name": match["name"],
        "LayerType": match["kind"],
        "Inputs": _new_tensors(match["inputs"]),
        "Constants": [*_new_tensors(match["constants"] or ""), 0.5],  # numbers stand among them
        "Outputs": _new_tensors(match["outputs"]),
        "TacticName": match["tactic"],
        "StreamId": int(match["stream"] or 0),
        "Metadata": "\x1e".join(_NODES.findall(match["metadata"])),
    }


def _of_10(match: re.Match[str], *, are_sizes_known: bool) -> Json:
    def old(text: str) -> list[Json]:
        return [
            {
                "Name": name,
                "Location": "Device",
                "Dimensions": shape,
                "Format/Datatype": _SENTENCES.get(dtype, f"Row major linear {dtype} format") if are_sizes_known else NOT_SAID,
            }
            for name, shape, dtype in _tensors(text)
        ]

    kind = match["kind"]
    layer: Json = {
        "Name": match["name"],
        "LayerType": _OLD_TYPES.get(kind, "Reformat"),
        "Inputs": old(match["inputs"]),
        "Outputs": old(match["outputs"]),
        "TacticValue": "0x0000000000000001",
        "StreamId": int(match["stream"] or 0),
        "Metadata": "\x1e".join(_NODES.findall(match["metadata"])),
    }
    weights = [(shape, dtype) for _, shape, dtype in _tensors(match["constants"] or "") if len(shape) > 1]
    if kind in _OLD_TYPES and kind != "kgen" and weights:
        shape, dtype = max(weights, key=lambda one: math.prod(one[0]))
        layer["Weights"] = {"Type": dtype, "Count": math.prod(shape)}
        layer["ParameterType"] = "MatrixMultiply" if kind == "gemm" else "Convolution"
        if kind != "gemm":
            layer |= {"Kernel": shape[2:], "OutMaps": shape[0], "Groups": 1}
    return layer


def _new_tensors(text: str) -> list[Json]:
    return [
        {"Name": name, "Dimensions": shape, "Datatype": dtype, "Format": "Row major linear format"} for name, shape, dtype in _tensors(text)
    ]


def _tensors(text: str) -> list[tuple[str, list[int], str]]:
    return [
        (found["name"].strip(), [int(size) for size in found["shape"].split(",") if size.strip()], found["dtype"])
        for found in _TENSOR.finditer(text)
    ]
