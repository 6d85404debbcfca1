"""The pass that lets matrix products multiply blocks of integers (case 16 of ``engine_builder.qdq.onnxruntime_dialect``).

A product of x with a constant matrix becomes one ``MatMulNBits`` of the domain com.microsoft, which has the weight in integers with one
scale for each block along the axis that is summed over, rounds each row of x in the same blocks, and adds the bias:

    y = MatMulNBits<accuracy_level = 4>(x, weight levels, scales, bias)

The levels are stored unsigned, 2^(bits - 1) above themselves, those of 4 bits two in a byte, the first in its lower half. The node bears
the layer's name, and y the name that it had. Steps may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from calibration.number_formats.block_grids import block_steps
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.emit.activations import add_initializer
from engine_builder.qdq.emit.int8_weights import absorb_factors, float_initializer

DOMAIN, OPERATOR, DOMAIN_VERSION = "com.microsoft", "MatMulNBits", 1
_IN_INTEGERS = 4  # accuracy_level: rows are rounded to int8, and integers multiplied
_HALF_A_BYTE = 4  # bits


class QuantizeInBlocks(ir.passes.InPlacePass):
    """Replaces matrix products by products of integers in blocks.

    Requires: a MatMul or Gemm for each layer, with its input on the left as it is and a float32 matrix on the right, an initializer of the
    main graph that no other layer uses.
    """

    def __init__(self, layers: Sequence[tuple[Layer, LayerPrecision]], names: Names, levels: Levels) -> None:
        """Keep what is to be replaced; ``names`` hands out the names of new values, ``levels`` holds values that are not the nearest."""
        self._layers = tuple(layers)
        self._names = names
        self._levels = levels

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the products, in the order of the layers."""
        nodes = {node.name: node for node in model.graph}
        for layer, choice in self._layers:
            if layer.name not in nodes:
                raise BuildError(f"layer {layer.name!r}: not in the model", fix="find the layers in this very model")
            self._replace(model.graph, nodes[layer.name], layer, choice)
        if self._layers:
            model.graph.opset_imports.setdefault(DOMAIN, DOMAIN_VERSION)
        return ir.passes.PassResult(model, modified=bool(self._layers))

    def _replace(self, graph: ir.Graph, node: ir.Node, layer: Layer, choice: LayerPrecision) -> None:
        weight = float_initializer(graph, str(layer.weight), layer.name)
        bias = None if layer.bias is None else float_initializer(graph, layer.bias, layer.name)
        if node.op_type == "Gemm":
            weight, bias = absorb_factors(node, weight, bias)
        axis, precision = 1 - (layer.weight_axis or 0), choice.precision
        steps, levels = block_steps(weight, axis, precision), self._levels.get((layer.name, precision))
        if levels is None:
            levels = nearest_levels(weight, steps, axis, precision)
        rows, scales = (levels.T, steps.T) if axis == 0 else (levels, steps)  # (outputs, ...)
        length, outputs = rows.shape[1], rows.shape[0]
        new, name = self._names.new, layer.name
        packed = add_initializer(graph, new(str(layer.weight), "quantized"), packed_blocks(rows, precision))
        scale = add_initializer(graph, new(str(layer.weight), "scale"), np.ascontiguousarray(scales))
        inputs: list[ir.Value | None] = [node.inputs[0], packed, scale]
        is_added = bias is not None and bias.shape in ((outputs,), (1, outputs))
        if bias is not None and is_added:
            inputs += [None, None, add_initializer(graph, new(str(layer.bias), "added"), bias.reshape(-1))]
        attributes = block_attributes(length, outputs, precision)
        is_last = bias is None or is_added
        product = ir.node(OPERATOR, inputs, attributes=attributes, domain=DOMAIN, name=name if is_last else new(name, OPERATOR))
        made = [product]
        if bias is not None and not is_added:
            product.outputs[0].name = new(str(product.name), "value")
            made.append(ir.node("Add", [product.outputs[0], add_initializer(graph, new(str(layer.bias), "added"), bias)], name=name))
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [node.outputs[0]], [made[-1].outputs[0]])
        for tensor in (layer.weight, layer.bias):
            old = None if tensor is None else graph.initializers.get(tensor)
            if tensor is not None and old is not None and not old.uses() and not old.is_graph_output() and not old.is_graph_input():
                del graph.initializers[tensor]


def noted_types(explicit: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the type, without a shape, of each inner tensor that operators of onnxruntime's own domain make: onnx's inference knows none.

    All of those that the dialect writes make floats.
    """
    listed = {value.name for value in explicit.graph.output}
    made = [node.output[0] for node in explicit.graph.node if node.domain == DOMAIN and node.output[0]]
    return [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in made if name not in listed]


def block_attributes(inputs: int, outputs: int, precision: Precision) -> dict[str, int]:
    """Return the attributes of the operator for a weight of so many inputs and outputs."""
    block = precision.weight_block or inputs
    return {"K": inputs, "N": outputs, "bits": precision.bits, "block_size": block, "accuracy_level": _IN_INTEGERS}


def nearest_levels(weight: NDArray[np.float32], steps: NDArray[np.float32], axis: int, precision: Precision) -> NDArray[np.int8]:
    """Return the nearest level of each weight.

    Args:
        weight: Two axes.
        steps: ``block_steps`` of it.
        axis: That the product sums over.
        precision: One that ``rounds_blocks``.
    """
    step = np.repeat(steps, precision.weight_block or weight.shape[axis], axis=axis)
    step = step[: weight.shape[0]] if axis == 0 else step[:, : weight.shape[1]]
    return np.clip(np.round(weight / step), precision.grid.bottom, precision.grid.top).astype(np.int8)


def packed_blocks(rows: NDArray[np.int8], precision: Precision) -> NDArray[np.uint8]:
    """Return levels as the operator stores them, (outputs, blocks, bytes of a block) uint8; what fills the last block is 0.

    Args:
        rows: (outputs, inputs).
        precision: One that ``rounds_blocks``.
    """
    block = precision.weight_block or rows.shape[1]
    filled = np.pad(rows, [(0, 0), (0, -rows.shape[1] % block)]).astype(np.int16) + 2 ** (precision.bits - 1)
    levels = filled.astype(np.uint8).reshape(len(rows), -1, block)
    return levels if precision.bits > _HALF_A_BYTE else np.asarray(levels[..., ::2] | (levels[..., 1::2] << np.uint8(_HALF_A_BYTE)))
