r"""Folding of neighbours into a convolution or Gemm, so that each layer is one node with one weight and one bias.

BatchNormalization after a convolution, with s = gamma / sqrt(variance + epsilon) per output channel:
    BN(W * x + b) = (s W) * x + s (b - mean) + beta
Gemm with alpha and beta: alpha A B + beta C = A (alpha B) + (beta C).
A zero Pad before a convolution is the convolution's own padding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.graph_passes.fold_constants import take_over

_AXIS = {"Conv": 0, "ConvTranspose": 1}  # output channels in the weight


def fold_batch_norms(graph: ir.Graph) -> int:
    """Fold each BatchNormalization that directly follows a Conv or an ungrouped ConvTranspose, in place; return how many."""
    return sum(_fold_batch_norm(graph, node) for node in tuple(graph) if node.op_type == "BatchNormalization")


def fold_pads(graph: ir.Graph) -> int:
    """Move each constant zero Pad that only convolutions read into those, in place; return how many."""
    return sum(_fold_pad(graph, node) for node in tuple(graph) if node.op_type == "Pad")


def fold_gemm_factors(graph: ir.Graph) -> int:
    """Multiply the alpha and beta of each Gemm with constant weight and bias into these, in place; return how many."""
    return sum(_fold_factors(graph, node) for node in tuple(graph) if node.op_type == "Gemm")


def _fold_batch_norm(graph: ir.Graph, norm: ir.Node) -> bool:
    source = norm.inputs[0]
    conv = source.producer() if source is not None else None
    if source is None or conv is None or conv.op_type not in _AXIS or len(source.uses()) != 1 or source.is_graph_output():
        return False
    if _integer(norm, "training_mode", 0) or sum(bool(value.uses()) for value in norm.outputs[1:]):
        return False
    if conv.op_type == "ConvTranspose" and _integer(conv, "group", 1) != 1:
        return False
    weight, bias = _constant(conv, 1), _constant(conv, 2)
    gamma, beta, mean, variance = (_constant(norm, index) for index in range(1, 5))
    if weight is None or gamma is None or beta is None or mean is None or variance is None or (_has_input(conv, 2) and bias is None):
        return False
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    scale = gamma / np.sqrt(variance + epsilon)
    shape = [1] * weight.ndim
    shape[_AXIS[conv.op_type]] = -1
    offset = -mean if bias is None else bias - mean
    stem = norm.outputs[0].name
    conv.replace_input_with(1, _initializer(graph, f"{stem}_weight", weight * scale.reshape(shape)))
    _set_input(conv, 2, _initializer(graph, f"{stem}_bias", offset * scale + beta))
    take_over(graph, source, norm)
    return True


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


def _set_input(node: ir.Node, index: int, value: ir.Value) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
