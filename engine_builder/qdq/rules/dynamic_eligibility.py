"""Which precisions the layers of a model may take in the dialect of ONNX Runtime's CPU provider.

1. Every layer may take integers on a grid that was chosen before, but for a MatMul with a stack of matrices as its weight: onnxruntime
   takes no zero points of that form, and its engine does not run.
2. Dynamic integers are for matrix products: a MatMul or Gemm of a computed tensor, as it is, with a constant matrix on the right.
   onnxruntime has no fast kernel for convolutions of this kind: they take three to eight times as long as in float.
   Products of two computed tensors, an attention's, would have both sides rounded and one of them packed in every call: measured at
   1.4 to 1.75 times the float product, from 48 to 384 tokens.
   An LSTM is one as well: its kernel (DynamicQuantizeLSTM) takes directions, starting states, lengths, peepholes, clipping and
   activations as the float one does. Nothing else is offered for an LSTM, and nothing for a GRU: onnxruntime has no integer kernel for it.
3. They are offered where those products are a tenth of the model's multiply-accumulates at least. In a convolution network they are the
   classifier at its end, less than that: they can save next to nothing there, and every precision costs a search an engine and probes.
4. Integers in blocks are for those products too (``engine_builder.qdq.rules.block_eligibility``).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from engine_builder.qdq.rules.block_eligibility import block_products, is_matrix_product

LEAST_SHARE = 0.1  # of a model's multiply-accumulates
_MATRIX_RANK = 2


class OnnxRuntimeEligibility:
    """What the layers of one prepared model may take. Keeps names alone of the model."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
        """Note the layers of rule 2, none where they are not worth it (rule 3)."""
        nodes = {node.name: node for node in model.graph.node}
        ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
        self._stacks = frozenset(
            layer.name for layer in layers if layer.op_type == "MatMul" and ranks.get(str(layer.weight), 0) > _MATRIX_RANK
        )
        recurrent = [layer for layer in layers if layer.kind is LayerKind.RECURRENT]
        products = [*recurrent, *(layer for layer in layers if is_matrix_product(layer, nodes[layer.name], ranks))]
        share = sum(layer.macs for layer in products) / max(sum(layer.macs for layer in layers), 1)
        self._dynamic = frozenset(layer.name for layer in products) if share >= LEAST_SHARE else frozenset()
        self._in_blocks = block_products(model, layers)

    def can_take(self, layer: Layer, precision: Precision) -> bool:
        """Return whether the layer may take the precision."""
        if precision.is_dynamic:
            return layer.name in self._dynamic
        if precision.rounds_blocks:
            return layer.name in self._in_blocks
        return precision.multiplies_integers and layer.kind is not LayerKind.RECURRENT and layer.name not in self._stacks
