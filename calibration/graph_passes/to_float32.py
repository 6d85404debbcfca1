"""Half-precision models as float32 models with the same inputs and outputs.

Every float16 and bfloat16 tensor inside becomes float32; Casts at the graph's inputs and outputs keep the user's types.
A value of either format is a float32 value exactly, so only the rounding between the operators is lost.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import free_name, names_of_values
from calibration.number_formats.precision import Precision

_HALF = {ir.DataType.FLOAT16: Precision.FP16, ir.DataType.BFLOAT16: Precision.BF16}
_TYPE_ATTRIBUTES = ("to", "dtype")  # Cast; EyeLike, Random*, Bernoulli, ...


def float_type(model: ir.Model) -> Precision:
    """Return the float format that most of the model's weights are computed with, counted in elements.

    A weight that is only stored in another format, and cast before anything else reads it, counts as what the Cast gives.
    """
    sizes = {Precision.FP32: 0, Precision.FP16: 0, Precision.BF16: 0}
    for graph in model.graphs():
        for value in graph.initializers.values():
            dtype = _read_as(value)
            if value.const_value is not None and dtype in (ir.DataType.FLOAT, *_HALF):
                sizes[_HALF.get(dtype, Precision.FP32)] += value.const_value.size
    return max(sizes, key=lambda precision: (sizes[precision], precision is Precision.FP32))


def convert_to_float32(model: ir.Model) -> bool:
    """Turn each half-precision tensor inside ``model`` into float32, in place; return whether there was one.

    Rules:
        1. Initializers, tensors in attributes, and attributes that name a type become float32.
        2. A graph input of half precision keeps its type and is followed by a Cast to float32, which all its readers read instead.
        3. A graph output of half precision keeps its name and type: a Cast makes it from the float32 tensor ``<name>_float32``.
        4. Names of new tensors get a number behind them where the model has them already.
    """
    changed = False
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in _HALF:  # rule 1
                value.const_value = _float32_tensor(tensor)
                value.dtype = ir.DataType.FLOAT
                changed = True
    user_outputs = [(index, value, value.dtype) for index, value in enumerate(model.graph.outputs)]
    for node in tuple(model.graph.all_nodes()):
        changed |= _convert_attributes(node)  # rule 1
        for value in node.outputs:
            changed |= _retype(value)
        for attribute in node.attributes.values():
            for inner in _graphs(attribute):
                for value in inner.inputs:
                    changed |= _retype(value)
    taken = names_of_values(model)
    changed |= _cast_outputs(model.graph, user_outputs, taken)
    changed |= _cast_inputs(model.graph, taken)
    return changed


def _read_as(value: ir.Value) -> ir.DataType | None:
    casts = {node.attributes["to"].as_int() if node.op_type == "Cast" else None for node, _ in value.uses()}
    only = casts.pop() if len(casts) == 1 else None
    return ir.DataType(only) if only is not None else value.const_value.dtype if value.const_value is not None else None


def _cast_inputs(graph: ir.Graph, taken: set[str]) -> bool:
    changed = False
    for value in graph.inputs:
        if value.dtype in _HALF:  # rule 2
            readers = tuple(value.uses())
            cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT}, name=f"{value.name}_to_float32")
            cast.outputs[0].name = _taken_now(f"{value.name}_float32", taken)
            cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
            graph.insert_before(graph[0], cast)
            for reader in readers:
                reader.node.replace_input_with(reader.idx, cast.outputs[0])
            changed = True
    return changed


def _cast_outputs(graph: ir.Graph, outputs: list[tuple[int, ir.Value, ir.DataType | None]], taken: set[str]) -> bool:
    changed = False
    casts: dict[ir.Value, ir.Value] = {}
    for index, value, dtype in outputs:
        if dtype not in _HALF or value.is_graph_input():
            continue
        if value not in casts:  # rule 3
            name = value.name
            value.name = _taken_now(f"{name}_float32", taken)
            value.dtype = ir.DataType.FLOAT
            cast = ir.node("Cast", [value], attributes={"to": dtype}, name=f"{name}_from_float32")
            cast.outputs[0].name = name
            cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
            graph.append(cast)
            casts[value] = cast.outputs[0]
        graph.outputs[index] = casts[value]
        changed = True
    return changed


def _taken_now(name: str, taken: set[str]) -> str:
    """Return the name, or one like it that is free, after noting it as taken (rule 4)."""
    free = free_name(name, taken)
    taken.add(free)
    return free


def _convert_attributes(node: ir.Node) -> bool:
    changed = False
    for name, attribute in tuple(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _HALF:
            node.attributes[name] = ir.AttrTensor(name, _float32_tensor(attribute.as_tensor()))
            changed = True
        elif name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT and attribute.as_int() in [int(dtype) for dtype in _HALF]:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
            changed = True
    return changed


def _retype(value: ir.Value) -> bool:
    if value.dtype in _HALF:
        value.dtype = ir.DataType.FLOAT
        return True
    return False


def _float32_tensor(tensor: ir.TensorProtocol) -> ir.Tensor[np.ndarray]:
    return ir.Tensor(np.asarray(tensor.numpy()).astype(np.float32), name=tensor.name)


def _graphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    if attribute.type == ir.AttributeType.GRAPHS:
        return tuple(attribute.as_graphs())
    return ()
