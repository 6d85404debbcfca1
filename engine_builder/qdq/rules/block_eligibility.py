"""Which layers may multiply blocks of integers in ONNX Runtime: products with a constant matrix, where their weights cost time.

One operator does it all (``engine_builder.qdq.emit.block_layers``), so its layers are those of the dynamic form: a MatMul or Gemm of a
computed tensor, as it is, with a constant matrix on the right. Inputs of any length go: the last block is filled up.

They are offered where these products take about a tenth of the model's time at least. With one row a call a product takes as long as its
weights take to be read, whatever the multiplications: a weight counts as much as ``MACS_OF_A_WEIGHT`` of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from calibration.graph.layers import Layer, LayerKind

LEAST_SHARE = 0.1  # of a model's work
MACS_OF_A_WEIGHT = 16  # multiply-accumulates of one thread in the time in which a float weight comes from memory
_MATRIX_RANK = 2


def block_products(model: onnx.ModelProto, layers: Sequence[Layer]) -> frozenset[str]:
    """Return the names of the layers that may multiply blocks, none where they are not worth it.

    Args:
        model: The prepared model.
        layers: Its layers.
    """
    nodes = {node.name: node for node in model.graph.node}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    products = [layer for layer in layers if is_matrix_product(layer, nodes[layer.name], ranks)]
    work = {layer.name: max(layer.macs, MACS_OF_A_WEIGHT * layer.weight_count) for layer in layers}
    share = sum(work[layer.name] for layer in products) / max(sum(work.values()), 1)
    return frozenset(layer.name for layer in products) if share >= LEAST_SHARE else frozenset()


def is_matrix_product(layer: Layer, node: onnx.NodeProto, ranks: Mapping[str, int]) -> bool:
    """Return whether a layer is a MatMul or Gemm of a computed tensor, as it is, with a constant matrix on the right.

    Args:
        layer: The layer.
        node: Its node.
        ranks: Axes of each constant, by name.
    """
    if layer.kind is not LayerKind.WEIGHTED or layer.op_type not in ("MatMul", "Gemm") or ranks.get(str(layer.weight)) != _MATRIX_RANK:
        return False
    is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return node.input[1] == layer.weight and not is_transposed
