"""Which precisions a layer may take in a TensorRT engine, and why not the others.

Float types suit every layer, but for BF16 in case 1. Of the low precisions, refused is what the builder rejects, and what it accepts
and then computes in float without a word or makes dearer on every target:

1. ConvTranspose: no low precision; the weights would be dequantized at run time and the kernel run in float. In BF16 its build fails.
2. What the target gains nothing from: ``engine_builder.qdq.rules.target_placement``. That is not refused, only never proposed.
3. MatMul and Gemm: with a constant matrix on the right (two axes). On the left, an INT4 weight crashes the builder and an INT8 one costs a
   kernel more for its scales; a stack of matrices has one scale per column of all of them.
4. INT4 is weight-only: MatMul and Gemm with at least two blocks of 32 along the reduction axis, all of them whole; with one block, or one
   scale a channel, the weight is dequantized by a kernel of its own.
5. A residual add computes nothing in 8 bits. It gains where it reads the stored 8-bit copy of a tensor that a weighted layer reads too;
   without one, or in INT4, there is nothing to gain.
6. A product of two computed tensors has no INT4.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from engine_builder.qdq.rules.target_placement import Placement, shapes_in

_MATRIX_RANK = 2


class Eligibility:
    """What the layers of one prepared model may take. Reads the model once and keeps no reference to it."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], placement: Placement | None = Placement.TENSORRT_RTX) -> None:
        """Note the shape of every weight.

        Args:
            model: The prepared model.
            layers: ``find_layers(model)``.
            placement: The target's rules of what is worth trying; None for all that its builder has a form for.
        """
        self._placement, self._noted = placement, shapes_in(model)
        weights = {layer.weight for layer in layers if layer.weight is not None}
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in weights}
        self._inputs = {node.name: tuple(node.input) for node in model.graph.node}
        self._readers: dict[str, list[Layer]] = {}
        for layer in layers:
            if layer.kind is LayerKind.WEIGHTED:
                self._readers.setdefault(layer.inputs[0], []).append(layer)

    def can_take(self, layer: Layer, precision: Precision) -> bool:
        """Return whether the layer may take the precision, and the target may gain from it."""
        if self.refusal(layer, precision) is not None:
            return False
        if self._placement is None or not precision.is_quantized:
            return True
        return self._placement.why_left_out(layer, precision, self._shapes.get(str(layer.weight), ()), self._noted) is None

    def refusal(self, layer: Layer, precision: Precision) -> str | None:
        """Return why the layer may not take the precision, None where it may."""
        if not precision.is_quantized:
            return "the builder has no bf16 ConvTranspose" if (layer.op_type, precision) == ("ConvTranspose", Precision.BF16) else None
        if layer.kind is LayerKind.RECURRENT:
            return "the builder has no low-precision LSTM"
        if layer.kind is LayerKind.RESIDUAL_ADD:  # rule 5
            if precision.is_weight_only:
                return f"{precision} is for weights, and a sum has none"
            if self.shared_inputs(layer, precision):
                return None
            return f"no weighted layer reads an input of this sum in {precision}, so it would only be rounded more"
        if layer.kind is LayerKind.ATTENTION_PRODUCT:  # rule 6
            return f"{precision} is for weights, and a product of two computed tensors has none" if precision.is_weight_only else None
        return self._weighted(layer, precision)

    def shared_inputs(self, layer: Layer, precision: Precision) -> tuple[str, ...]:
        """Return the inputs of a sum that a weighted layer may read in the precision (rule 5)."""
        names = dict.fromkeys(layer.inputs)
        return tuple(name for name in names if any(self.can_take(reader, precision) for reader in self._readers.get(name, ())))

    def reduction_axis(self, layer: Layer) -> int:
        """Return the axis that a matrix, the weight of a MatMul or Gemm, is summed over."""
        return 1 - (layer.weight_axis or 0)

    def _weighted(self, layer: Layer, precision: Precision) -> str | None:
        shape = self._shapes.get(str(layer.weight), ())
        inputs = self._inputs.get(layer.name, ())
        if layer.op_type == "ConvTranspose":  # rule 1
            return "a low-precision ConvTranspose runs in float, with its weight dequantized at run time"
        if layer.op_type == "Conv":
            return f"{precision} is for the weights of MatMul and Gemm" if precision.is_weight_only else None  # rule 4
        if len(shape) != _MATRIX_RANK or not inputs or inputs[0] != layer.inputs[0]:  # rule 3
            return "its weight is not a matrix on the right-hand side"
        length = shape[self.reduction_axis(layer)]
        block = precision.weight_block
        if block is not None and (length % block or length < 2 * block):  # rule 4
            return f"its reduction axis has {length} elements, and {precision} takes two or more whole blocks of {block}"
        return None
