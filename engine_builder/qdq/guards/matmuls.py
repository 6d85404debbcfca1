"""The pass that keeps onnxruntime from making a quantized MatMul a float Gemm (case 12 of ``engine_builder.qdq.onnxruntime_dialect``).

Where onnxruntime knows every size of a MatMul with a bias behind it (a model of fixed batch size, or a product of matrices), it fuses
the two into a Gemm before it looks for pairs. Without a pair on the output that Gemm runs in float, and its int8 weight is dequantized
on every call: a ViT with a batch of 1, every layer quantized, took 2.2 times as long as in float, and 0.9 of it with this pass.
With a pair on the output it runs in integers, its bias in int32 steps of the input's scale times the weight's: where a channel of tiny or
dead weights has a bias, that clips (case 4 of ``rewrite`` prevents it where the bias is a layer's own).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.graph.free_names import Names
from engine_builder.qdq.emit.activations import add_initializer


class KeepQuantizedMatmuls(ir.passes.InPlacePass):
    """Gives the bias behind a quantized MatMul leading axes of size 1, which that fusion does not take; values stay the same.

    A product of two axes cannot have such a bias: there an identity that onnxruntime does not see through parts it from its bias.
    """

    def __init__(self, quantized: Collection[str], names: Names) -> None:
        """Keep the node names of the quantized layers; ``names`` hands out the names of new values."""
        self._quantized = quantized
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the biases, or add the identities."""
        is_fixed = all(value.shape is not None and value.shape.is_static() for value in model.graph.inputs)
        changed = False
        for node in list(model.graph):
            found = _parted_bias(node) if node.op_type == "MatMul" and node.name in self._quantized else None
            shape = node.outputs[0].shape
            if found is None or shape is None or not (is_fixed or shape.is_static() or len(shape) == 2):
                continue
            changed = True
            if len(shape) > 2:
                self._lengthen(model.graph, *found, axes=len(shape))
            else:
                self._part(model.graph, node)
        return ir.passes.PassResult(model, modified=changed)

    def _lengthen(self, graph: ir.Graph, add: ir.Node, index: int, *, axes: int) -> None:
        bias = add.inputs[index]
        if bias is None or bias.const_value is None:
            return
        values = bias.const_value.numpy()
        name = self._names.new(str(bias.name), "lengthened")
        add.replace_input_with(index, add_initializer(graph, name, values.reshape((1,) * (axes - 1) + (values.size,))))
        if not bias.uses() and not bias.is_graph_output():
            del graph.initializers[str(bias.name)]

    def _part(self, graph: ir.Graph, node: ir.Node) -> None:
        output = node.outputs[0]
        tensor, uses = str(output.name), list(output.uses())
        identity = ir.node("LeakyRelu", [output], attributes={"alpha": 1.0}, name=self._names.new(tensor, "keep_product"))
        result = identity.outputs[0]
        result.name, result.shape, result.type = self._names.new(tensor, "kept_product"), output.shape, output.type
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        graph.insert_after(node, identity)


def _parted_bias(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the Add of a constant vector that alone reads a product, and which of its inputs the vector is; None where they may be joined.

    They may where the sum is quantized at once and int32 holds the bias: that Gemm runs in integers, and was 1 to 6% faster than the
    product and the sum apart.
    """
    found = _bias_behind(node)
    if found is None:
        return None
    add, index = found
    is_quantized = [use.node.op_type for use in add.outputs[0].uses()] == ["QuantizeLinear"]
    return None if is_quantized and _fits_int32(node, add.inputs[index]) else found


def _fits_int32(product: ir.Node, bias: ir.Value | None) -> bool:
    one, other = (_scale(value) for value in product.inputs)
    if bias is None or bias.const_value is None or one is None or other is None:
        return True  # nothing that onnxruntime makes integers of
    return bool(np.all(np.abs(bias.const_value.numpy()) < np.iinfo(np.int32).max * one * other))


def _scale(value: ir.Value | None) -> NDArray[np.float64] | None:
    """Return the scale behind a dequantized tensor, 0-d or (channels,)."""
    producer = None if value is None else value.producer()
    scale = producer.inputs[1] if producer is not None and producer.op_type == "DequantizeLinear" else None
    return None if scale is None or scale.const_value is None else np.asarray(scale.const_value.numpy(), dtype=np.float64)


def _bias_behind(node: ir.Node) -> tuple[ir.Node, int] | None:
    output = node.outputs[0]
    uses = tuple(output.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or output.is_graph_output():
        return None
    index = 1 - uses[0].idx
    bias = uses[0].node.inputs[index]
    is_vector = bias is not None and bias.is_initializer() and bias.const_value is not None and len(bias.const_value.shape) == 1
    return (uses[0].node, index) if is_vector else None
