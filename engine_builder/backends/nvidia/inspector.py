"""Reads what an engine's inspector says about its layers, in the form of TensorRT 11 or 10.

Version 11 gives each tensor a ``Datatype``; version 10 hides it in a sentence, ``Format/Datatype``. Both name the model's nodes in
``Metadata``. An engine built with names only lists strings instead of objects: such kernels have a name and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.errors import EngineError

_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f\s]|$)")
# Words for number formats in the sentences of version 10, and ours; longer words first, since FP4E2M1 begins with FP4.
_WORDS = {
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "fp32": "float",
    "float": "float",
    "fp16": "half",
    "half": "half",
    "uint8": "uint8",
    "int32": "int32",
    "int64": "int64",
    "int8": "int8",
    "int4": "int4",
    "fp8": "fp8",
    "fp4": "fp4",
    "bool": "bool",
}


def kernels_from_inspector(text: str) -> tuple[Kernel, ...]:
    """Return the kernels of an engine, in order.

    Args:
        text: The inspector's JSON.

    Raises:
        EngineError: It is not in a known form.
    """
    try:
        layers = json.loads(text)["Layers"]
        return tuple(_kernel(layer) for layer in layers)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise EngineError(
            f"the engine inspector said {text[:200]!r}..., which has no list of layers as TensorRT 10 and 11 write it: {exc!r}",
            fix="report it with the TensorRT version",
        ) from exc


def _kernel(layer: object) -> Kernel:
    if isinstance(layer, str):
        return Kernel(layer, "", (), (), (), ())
    if not isinstance(layer, Mapping):
        raise TypeError(f"a layer is {layer!r}")
    return Kernel(
        name=str(layer["Name"]),
        kind=str(layer.get("LayerType", "")),
        nodes=tuple(dict.fromkeys(_NODE.findall(str(layer.get("Metadata", ""))))),
        inputs=_tensors(layer.get("Inputs", ())),
        constants=_constants(layer),
        outputs=_tensors(layer.get("Outputs", ())),
    )


def _tensors(found: Iterable[Mapping[str, object]]) -> tuple[KernelTensor, ...]:
    return tuple(KernelTensor(_dtype(entry), _shape(entry.get("Dimensions"))) for entry in found)


def _constants(layer: Mapping[str, object]) -> tuple[KernelTensor, ...]:
    if "Constants" in layer:
        return _tensors(layer["Constants"])  # type: ignore[arg-type]  # a list of JSON objects
    weights = layer.get("Weights")  # version 10: {"Type": "Int8", "Count": 131072}
    if not isinstance(weights, Mapping) or not weights.get("Count"):
        return ()
    return (KernelTensor(_word(str(weights["Type"])), (int(weights["Count"]),)),)


def _dtype(entry: Mapping[str, object]) -> str:
    said = entry.get("Datatype", entry.get("DataType", entry.get("Format/Datatype", "")))
    return _word(str(said))


def _word(said: str) -> str:
    """Return our word for a number format, from the builder's word or the sentence that holds it."""
    for part in re.findall(r"[a-z]+\d*", said.lower()):
        for word, ours in _WORDS.items():
            if part.startswith(word):
                return ours
    return said.lower()


def _shape(dimensions: object) -> tuple[int, ...]:
    return tuple(int(size) for size in dimensions) if isinstance(dimensions, list) else ()
