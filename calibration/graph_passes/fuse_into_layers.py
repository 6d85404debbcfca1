r"""A layer's own attributes in the form that all later steps expect: padding in the convolution, factors in the weight and bias.

Gemm with alpha and beta: alpha A B + beta C = A (alpha B) + (beta C).
A zero Pad before a convolution is the convolution's own padding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def fold_pads(graph: ir.Graph) -> int:
    """Move each constant zero Pad that only convolutions read into those, in place; return how many."""
    return sum(_fold_pad(graph, node) for node in tuple(graph) if node.op_type == "Pad")


def fold_gemm_factors(graph: ir.Graph) -> int:
    """Multiply the alpha and beta of each Gemm with constant weight and bias into these, in place; return how many."""
    return sum(_fold_factors(graph, node) for node in tuple(graph) if node.op_type == "Gemm")


def _fold_pad(graph: ir.Graph, pad: ir.Node) -> bool:
    source, padded = pad.inputs[0], pad.outputs[0]
    pads = _constant(pad, 1)
    value = _constant(pad, 2)
    mode = pad.attributes["mode"].as_string() if "mode" in pad.attributes else "constant"
    if source is None or pads is None or mode != "constant" or _has_input(pad, 3) or padded.is_graph_output():
        return False
    if (_has_input(pad, 2) and value is None) or (value is not None and np.any(value != 0)):
        return False
    rank = len(pads) // 2
    spatial = np.concatenate([pads[2:rank], pads[rank + 2 :]])
    if np.any(pads < 0) or np.any(pads[:2]) or np.any(pads[rank : rank + 2]):
        return False
    usages = tuple(padded.uses())
    for usage in usages:
        automatic = usage.node.attributes["auto_pad"].as_string() if "auto_pad" in usage.node.attributes else "NOTSET"
        if usage.node.op_type != "Conv" or usage.idx != 0 or automatic != "NOTSET" or usage.node.graph is not graph:
            return False
    for usage in usages:
        own = np.asarray(usage.node.attributes["pads"].as_ints()) if "pads" in usage.node.attributes else np.zeros_like(spatial)
        usage.node.attributes["pads"] = ir.AttrInt64s("pads", [int(amount) for amount in own + spatial])
        usage.node.replace_input_with(0, source)
    graph.remove(pad, safe=True)
    return True


def _fold_factors(graph: ir.Graph, gemm: ir.Node) -> bool:
    changed = False
    for name, index in (("alpha", 1), ("beta", 2)):
        factor = gemm.attributes[name].as_float() if name in gemm.attributes else 1.0
        constant = _constant(gemm, index)
        if factor != 1.0 and (constant is not None or not _has_input(gemm, index)):
            if constant is not None:
                scaled = _initializer(graph, f"{gemm.outputs[0].name}_{'weight' if index == 1 else 'bias'}", constant * factor)
                gemm.replace_input_with(index, scaled)
            del gemm.attributes[name]
            changed = True
    return changed


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.float64]) -> ir.Value:
    taken = {value.name for node in graph.all_nodes() for value in node.outputs} | {value.name for value in graph.inputs}
    while name in graph.initializers or name in taken:
        name += "_"
    tensor = ir.Tensor(np.ascontiguousarray(array, dtype=np.float32), name=name)
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(tensor.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _constant(node: ir.Node, index: int) -> NDArray[np.float64] | None:
    value = node.inputs[index] if _has_input(node, index) else None
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy(), dtype=np.float64)  # exact for float32, and for pads up to 2^53


def _has_input(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None
