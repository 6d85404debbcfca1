"""(model, layers, assignment, ranges, scheme) -> the explicit model: the precisions of an assignment written into the graph as Q/DQ.

What is quantized where. A layer is *quantized* when the assignment gives it INT8, *dynamic* when it gives it INT8_DYNAMIC, *in blocks* when
it gives it INT8_WEIGHTS or INT4_WEIGHTS; a *pair* on a tensor is a QuantizeLinear and a DequantizeLinear, and what comes out of it is
``fake_quantize_activation`` of the tensor.

1. *Inputs.* Each tensor of ``layer.inputs`` of a quantized layer gets a pair with the tensor's own range. It serves the quantized layers
   that read the tensor, one pair for all of them; every other reader, graph outputs included, keeps the float tensor.
2. *Outputs.* ``layer.output`` of a quantized layer whose op type is in ``scheme.quantized_outputs`` (after its Relu or Clip) gets a
   pair with its own range, which serves **all** readers and the graph output of that name. It is the pair of case 1 too where
   quantized layers read the tensor. Nothing is quantized between the layer's node and its Relu or Clip.
3. *Weights* of quantized layers are int8, symmetric, one scale per output channel: ``calibration.number_formats.weight_scales``, or the
   levels that are given in the place of the nearest (``calibration.algorithms.gptq``).
4. *Biases* of the quantized layers of case 2 that hold one number per output channel are int32 with scale s_x * s_w. Where a bias
   would not fit, that channel's s_w is raised until it does (in practice a dead channel, whose weights are 0 in any case).
   Other biases stay float.
5. *Tensors that only move values* (Reshape, Transpose, Flatten, Squeeze, Unsqueeze, Identity, MaxPool, DepthToSpace,
   SpaceToDepth) take the range of the tensor that they move, so a pair before and a pair after add no rounding and the runtime
   moves integers. See ``ranges_of_moved_tensors``.
6. Everything else (averages, softmax, normalization, ...) reads and writes float; it reads a tensor of case 2 dequantized. The
   runtime may run it on integers where it stands between two pairs, which rounds where the pairs round and nowhere else.
7. A Gemm of case 3 whose alpha or beta is not 1 has them multiplied into its weight and bias first.
8. Float layers stay float: where onnxruntime would quantize one by itself, an identity keeps it from that. See
   ``float_layers``.
9. Types and shapes that the prepared model notes for inner tensors are left out: where a user's model does not note them,
   they let onnxruntime fuse SkipLayerNormalization, whose CPU kernel is slower than its parts (MiniLM in int8: 0.61 instead of
   0.49 of the float latency).
10. *Smoothed inputs*: where a SmoothQuant scaling names quantized layers, they read the tensor times its factors, rounded on the product's
    own grid, and
   their weights are divided by the factors before case 3; every other reader, float layers among them, keeps the tensor. See
   ``calibration.algorithms.smooth_quant``.
11. *Joined tensors*: where some inputs of a Concat are values of a pair, the others take one as well, on a grid on which they are or
    would be rounded anyway, so that the runtime joins integers. See ``joins``.
12. *Products with a bias behind them* are kept apart from it where onnxruntime would make them a float Gemm, or one whose int32 bias
    clips. See ``engine_builder.qdq.guards.matmuls``.
13. *Outputs of the model* that nothing above quantizes stay float, also where onnxruntime would round them. See ``float_outputs``.
14. *Graphs inside nodes* (If, Loop) do not read a moved, dequantized tensor itself, at which onnxruntime ends. See ``captured``.
15. *Dynamic layers* have no pair: their kernels round the float tensor that they read with the range that it has in the call. Their weights
    are those of case 3, and case 7 holds. See ``engine_builder.qdq.emit.dynamic_layers``.
16. *Layers in blocks* have no pair either: one operator of onnxruntime's own domain has their weights in blocks of integers, and rounds the
    rows that it reads. Case 7 holds, and what the operator makes has its type noted, of which onnx's inference knows nothing. See
    ``engine_builder.qdq.emit.block_layers``.
17. *Patterns with a kernel of their own* (GELU, SiLU, LayerNormalization written out) of a dequantized tensor become that operator, since
    onnxruntime does not find them there. See ``engine_builder.qdq.guards.fused_kernels``.

The pairs are written here and not by onnxruntime's ``QDQQuantizer``: that one gives a pair to every reader of a tensor, overwrites a
user's constant called ``x_scale`` without a word (the model then computes something else), and leaves out, with a log line,
tensors whose type it does not know. Scales, zero points and the operators that onnxruntime runs in the end are the same.
18. *Where it is exact* stands in the model's metadata (``engine_builder.qdq.exactness``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.graph.free_names import Names, names_in
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision, Scheme
from calibration.onnx_model.foreign_types import without_foreign_types
from engine_builder.qdq.emit.activations import QuantizeActivations
from engine_builder.qdq.emit.block_layers import QuantizeInBlocks, noted_types
from engine_builder.qdq.emit.dynamic_layers import QuantizeDynamically
from engine_builder.qdq.emit.int8_weights import QuantizeWeights
from engine_builder.qdq.emit.joins import QuantizeJoins
from engine_builder.qdq.emit.smooth_quant import ApplySmoothQuant
from engine_builder.qdq.exactness import EXACT_ON, exact_on
from engine_builder.qdq.guards.captured import PartCaptures
from engine_builder.qdq.guards.float_layers import KeepFloatLayers
from engine_builder.qdq.guards.float_outputs import KeepFloatOutputs
from engine_builder.qdq.guards.fused_kernels import KeepFusedKernels
from engine_builder.qdq.guards.matmuls import KeepQuantizedMatmuls
from engine_builder.qdq.rules.placement import quantized_layers, ranges_of_moved_tensors


def rewrite(
    prepared: onnx.ModelProto,
    layers: Sequence[Layer],
    assignment: Mapping[str, Precision],
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    smooth_quants: Sequence[SmoothQuantScaling] = (),
    levels: Levels | None = None,
) -> onnx.ModelProto:
    """Return the explicit model; the prepared model is left as it is.

    Args:
        prepared: Result of ``calibration.graph_passes.normalize.prepare``: float32, opset 17 or later.
        layers: ``find_layers(prepared)``.
        assignment: Precision by layer name; a layer that is missing stays float.
        ranges: (lowest, highest) by tensor name, for the inputs and outputs of every layer.
        scheme: How the target quantizes.
        smooth_quants: Tensors to smooth for the layers that read them, where those are quantized.
        levels: Integer weights in the place of the nearest.

    Raises:
        BuildError: An unknown layer, a precision that this dialect has no form for, or a tensor without a range.
    """
    low = quantized_layers(layers, assignment)
    if not low:
        copy = onnx.ModelProto()
        copy.CopyFrom(prepared)
        del copy.graph.value_info[:]  # case 9
        return copy
    ranges = ranges_of_moved_tensors(prepared, ranges)
    model = ir.from_proto(without_foreign_types(prepared))  # a value of its own: the passes below edit it in place
    names = Names(names_in(model))
    quantized = tuple(layer for layer in low if not assignment[layer.name].rounds_in_kernel)
    chosen = [(layer, LayerPrecision(layer.name, assignment[layer.name])) for layer in low]
    products = QuantizeDynamically([item for item in chosen if item[1].precision.is_dynamic], scheme, names, levels or {})
    products(model)
    QuantizeInBlocks([item for item in chosen if item[1].precision.rounds_blocks], names, levels or {})(model)
    smooth = ApplySmoothQuant(quantized, ranges, smooth_quants, names)
    smooth(model)
    quantized, ranges = smooth.quantized, smooth.ranges
    weights = QuantizeWeights(quantized, ranges, scheme, names, levels or {})
    weights(model)
    QuantizeActivations(quantized, ranges, scheme, names)(model)
    if scheme.quantized_outputs:
        QuantizeJoins(names)(model)
        KeepQuantizedMatmuls({layer.name for layer in quantized}, names)(model)
        KeepFloatLayers({layer.name for layer in quantized}, names)(model)
        KeepFusedKernels(names)(model)
    KeepFloatOutputs(names)(model)
    PartCaptures(names)(model)
    model.metadata_props[EXACT_ON] = exact_on(is_saturable=bool(weights.saturable or products.saturable))
    explicit = ir.to_proto(model)
    del explicit.graph.value_info[:], explicit.graph.output[:]  # case 9
    explicit.graph.output.extend(prepared.graph.output)
    explicit.graph.value_info.extend(noted_types(explicit))
    return explicit
