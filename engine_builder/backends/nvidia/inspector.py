"""Reads what an engine's inspector says about its layers, in the forms of TensorRT 10 and 11; what cannot be read is unknown.

Two compilers write layers. That of fused regions (Myelin) calls them ``correlation``, ``gemm``, ``deconv``, ``kgen``; that of single ones
by the library that has the kernel: ``CaskConvolution``, ``CaskGemmMatrixMultiply``, ``CaskConvActPool``, ``CaskDeconvolutionV2``, .... Both
are brought to the first one's words. Version 11 gives each tensor a ``Datatype``; version 10 hides it in a sentence, ``Format/Datatype``,
which reads "N/A due to dynamic shapes" where sizes are open; weights are a type and a count there. Both name the model's nodes in
``Metadata``. An engine built with names only lists strings instead of objects: such kernels have a name, put together from their nodes'.

Nobody promises these forms, and an engine is none the worse for a report that cannot be read: nothing here raises.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence

from engine_builder.backends.kernel_work import CONVOLUTION, PRODUCT, TRANSPOSED
from engine_builder.backends.kernels import UNKNOWN, Kernel, KernelTensor

logger = logging.getLogger(__name__)

_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f\s]|$)")
_PROFILE = re.compile(r" \[profile (\d+)\]$")
# What multiplies, by the words in a layer's type; the first that fits, since a CaskGemmConvolution is a convolution.
_KINDS = (
    (re.compile(r"deconv|convtranspose", re.IGNORECASE), TRANSPOSED),
    (re.compile(r"conv|correlation", re.IGNORECASE), CONVOLUTION),
    (re.compile(r"gemm|matrixmultiply|matmul|fullyconnected", re.IGNORECASE), PRODUCT),
)
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
    "e8m0": "e8m0",
}


def kernels_from_inspector(text: str, profile: int = 0) -> tuple[Kernel, ...]:
    """Return the kernels of an engine, in order; none where the text has no list of layers.

    Args:
        text: The inspector's JSON.
        profile: The optimization profile whose kernels are asked for. An engine with several lists the layers of all, those of the second
            and later with the profile at the end of their name; where none is named so, all are returned.
    """
    try:
        data = json.loads(text)
    except ValueError as exc:
        logger.warning("the engine inspector's answer is no JSON (%s): %.200r", exc, text)
        return ()
    layers = data.get("Layers") if isinstance(data, Mapping) else None
    if not isinstance(layers, list):
        logger.warning("the engine inspector's answer has no list of layers: %.200r", text)
        return ()
    kernels = tuple(_kernel(layer) for layer in layers)
    of_one = tuple(kernel for kernel in kernels if _profile_in_name(kernel.name) == profile)
    return of_one or kernels


def _profile_in_name(name: str) -> int:
    found = _PROFILE.search(name)
    return 0 if found is None else int(found[1])


def nodes_in_name(name: str) -> tuple[str, ...]:
    """Return the nodes that a layer of whose nodes nothing else is said is named after."""
    return tuple(dict.fromkeys(name.split(" + ")))


def _kernel(layer: object) -> Kernel:
    if not isinstance(layer, Mapping):
        return Kernel(layer, "", nodes_in_name(layer), (), (), ()) if isinstance(layer, str) else Kernel(UNKNOWN, "", (), (), (), ())
    name = str(layer.get("Name", UNKNOWN))
    kind = _kind(str(layer.get("LayerType", "")), str(layer.get("ParameterType", "")))
    outputs = _tensors(layer.get("Outputs"))
    return Kernel(
        name=name,
        kind=kind,
        nodes=tuple(dict.fromkeys(_NODE.findall(str(layer["Metadata"])))) if "Metadata" in layer else nodes_in_name(name),
        inputs=_tensors(layer.get("Inputs")),
        constants=_tensors(layer["Constants"]) if "Constants" in layer else _weights(layer, kind, outputs),
        outputs=outputs,
        tactic=_tactic(layer),
    )


def _tactic(layer: Mapping[str, object]) -> str | None:
    """Return the name of the tactic, or, where version 10 gives none, its number."""
    return next((str(said) for key in ("TacticName", "TacticValue") if (said := layer.get(key))), None)


def _kind(layer_type: str, parameter_type: str) -> str:
    for words in (layer_type, parameter_type):
        for pattern, kind in _KINDS:
            if pattern.search(words):
                return kind
    return layer_type


def _tensors(found: object) -> tuple[KernelTensor, ...]:
    """Return the tensors of a list; numbers in it, as constants may be, are none."""
    if not isinstance(found, list):
        return ()
    return tuple(KernelTensor(_dtype(entry), _shape(entry.get("Dimensions"))) for entry in found if isinstance(entry, Mapping))


def _weights(layer: Mapping[str, object], kind: str, outputs: Sequence[KernelTensor]) -> tuple[KernelTensor, ...]:
    """Return the weight of version 10, {"Type": "Int8", "Count": 131072}, with the shape that its layer gives it."""
    found = layer.get("Weights")
    count = found.get("Count") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(count, int) or count < 1:
        return ()
    return (KernelTensor(_word(str(found.get("Type", ""))), _weight_shape(layer, kind, count, outputs)),)


def _weight_shape(layer: Mapping[str, object], kind: str, count: int, outputs: Sequence[KernelTensor]) -> tuple[int, ...]:
    kernel, channels, groups = _shape(layer.get("Kernel")), layer.get("OutMaps"), layer.get("Groups", 1)
    if kind in (CONVOLUTION, TRANSPOSED) and isinstance(channels, int) and isinstance(groups, int) and channels > 0 and groups > 0:
        shape = (channels, count // max(channels * math.prod(kernel), 1), *kernel)
        if kind == TRANSPOSED:
            written = channels // groups
            shape = (count // max(written * math.prod(kernel), 1), written, *kernel)
        return shape if kernel and math.prod(shape) == count else (count,)
    columns = outputs[0].shape[-1] if kind == PRODUCT and outputs and outputs[0].shape else 0
    return (count // columns, columns) if columns > 0 and count % columns == 0 else (count,)


def _dtype(entry: Mapping[str, object]) -> str:
    said = entry.get("Datatype", entry.get("DataType", entry.get("Format/Datatype", "")))
    return _word(str(said))


def _word(said: str) -> str:
    """Return our word for a number format, from the builder's word or the sentence that holds it."""
    for part in re.findall(r"[a-z]+\d*(?:[a-z]\d+)*", said.lower()):
        for word, ours in _WORDS.items():
            if part.startswith(word):
                return ours
    return UNKNOWN


def _shape(dimensions: object) -> tuple[int, ...]:
    if not isinstance(dimensions, list) or not all(isinstance(size, int) for size in dimensions):
        return ()
    return tuple(dimensions)
