"""The stand-in's plans: the explicit model, what the builder said of its layers, and the real plan of TensorRT-RTX."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx.numpy_helper

from calibration.codec import json_from_value, value_from_json

_MAGIC = b"stand-in plan\n"
LEAST_STRIPPED = 8  # elements
MULTIPLYING = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """An input or output."""

    name: str
    is_input: bool
    dtype: str  # TensorRT's word
    shape: tuple[int, ...]  # -1: open
    symbols: tuple[str, ...]  # the model's names of the open axes, empty text for the others
    is_on_host: bool
    profiles: tuple[tuple[tuple[int, ...], ...], ...]  # smallest, usual and largest sizes in each profile; empty where none were given


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What a runtime has to know."""

    version: str
    device: str  # name of the GPU that it is for
    tensors: tuple[PlanTensor, ...]
    layers: tuple[str, ...]  # the builder's lines
    milliseconds: float  # of one run
    is_quantized: bool
    profiles: int = 1  # how many it has
    streamable: int = 0  # bytes of weights that it can stream
    is_wrong: bool = False  # outputs come out with the wrong sign
    stripped: tuple[str, ...] = ()  # names of the weights that it was built without, and has not got back


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A whole plan."""

    header: PlanHeader
    model: bytes  # the explicit model
    plan: bytes  # NVIDIA's

    def serialized(self) -> bytes:
        """Return the file."""
        head = json.dumps(json_from_value(self.header)).encode()
        return b"".join((_MAGIC, len(head).to_bytes(8, "little"), len(self.model).to_bytes(8, "little"), head, self.model, self.plan))


def read_plan(data: bytes) -> PlanFile | None:
    """Return what ``serialized`` gave; None for any other bytes."""
    if not data.startswith(_MAGIC):
        return None
    at = len(_MAGIC)
    head, model = (int.from_bytes(data[at + 8 * index : at + 8 * (index + 1)], "little") for index in range(2))
    at += 16
    header = value_from_json(PlanHeader, json.loads(data[at : at + head]))
    return PlanFile(header, data[at + head : at + head + model], data[at + head + model :])


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a model has a layer in low precision."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


def milliseconds_of(model: onnx.ModelProto, *, float_ms: float, half_ms: float, low_ms: float) -> float:
    """Return what one run takes: each layer that multiplies by the number format that it reads, all else a thousandth."""
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    writers = {name: node.op_type for node in graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.initializer}
    total = 0.001
    for node in graph.node:
        if node.op_type not in MULTIPLYING:
            continue
        read = [name for name in node.input[:2] if name not in weights]
        if any(writers.get(name) == "DequantizeLinear" for name in node.input[:2]):
            total += low_ms
        else:
            total += float_ms if any(kinds.get(name) == onnx.TensorProto.FLOAT for name in read) else half_ms
    return total


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the size of a model's weights."""
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def without_weights(model: onnx.ModelProto) -> tuple[str, ...]:
    """Empty the model's weights, but for small ones, which a builder needs itself, and return their names."""
    found = [tensor for tensor in model.graph.initializer if onnx.numpy_helper.to_array(tensor).size >= LEAST_STRIPPED]
    for tensor in found:
        kept = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        tensor.CopyFrom(kept)
    return tuple(tensor.name for tensor in found)


def with_weights(plan: PlanFile, given: dict[str, bytes]) -> PlanFile:
    """Return the plan with tensors in the place of those that it was built without."""
    model = onnx.load_model_from_string(plan.model)
    for tensor in model.graph.initializer:
        if tensor.name in given:
            tensor.ParseFromString(given[tensor.name])
    return replace(plan, header=replace(plan.header, stripped=()), model=model.SerializeToString())


def with_zeros(plan: PlanFile) -> PlanFile:
    """Return the plan as one runs that nobody has put weights into."""
    model = onnx.load_model_from_string(plan.model)
    given = {}
    for tensor in model.graph.initializer:
        if tensor.name in plan.header.stripped:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            given[tensor.name] = onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), kind), tensor.name).SerializeToString()
    return with_weights(plan, given)
