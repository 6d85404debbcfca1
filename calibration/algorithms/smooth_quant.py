r"""SmoothQuant: moves the spread between the channels of a layer's input into its weight, where every channel has a scale of its own.

A tensor x of a few large channels wastes the levels of its one 8-bit grid on all others. For a layer y = x W,

    y = (x * f) (W / f),    1 / f_c = max|x_c|^a / max|W_c|^(1 - a)

is the same function for any positive f, with one factor for each input channel c (SmoothQuant, arXiv 2211.10438, equation 4; a = 1/2).
The product x * f is what is rounded, and the weight is divided before it is rounded. All layers that read one tensor share its factors, so
that the engine multiplies and rounds the tensor once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.execution.layerwise_run import LayerwiseRun
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer, LayerKind
from calibration.onnx_model.weights_in_file import array_of

ALPHA = 0.5  # of the spread that goes into the weight
SMALLEST = 1e-5  # a channel's magnitude counts as at least this share of the largest: dead channels would get any factor

Spans = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]  # lowest and highest value of each channel, (channels,) each


@dataclass(frozen=True, slots=True)
class SmoothQuantScaling:
    """How one tensor is multiplied before it is rounded for the layers that read it."""

    tensor: str
    layers: tuple[str, ...]  # that divide their weight; other readers keep the tensor as it is
    factors: tuple[float, ...]  # f, one for each channel (last axis) of the tensor: float32 values, positive
    low: float  # range of the product
    high: float

    @property
    def factor(self) -> NDArray[np.float32]:
        """The factors, (channels,) float32."""
        return np.array(self.factors, dtype=np.float32)


def takes_smooth_quant(model: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers that SmoothQuant fits: MatMul and Gemm that multiply the last axis of their input by a constant matrix."""
    nodes = {node.name: node for node in model.graph.node}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return tuple(layer for layer in layers if layer.kind is LayerKind.WEIGHTED and _fits(layer, nodes[layer.name], ranks))


def channel_spans(model: onnx.ModelProto, layers: Sequence[Layer], batches: Iterable[Mapping[str, Array]]) -> Spans:
    """Return the lowest and highest value of each channel of the inputs of ``layers``; none of an input that is empty on all samples.

    Args:
        model: The prepared model.
        layers: Layers that are ``takes_smooth_quant``.
        batches: Inputs by name, each (batch, ...); read once.
    """
    layerwise = LayerwiseRun(model, layers)
    wanted = {layer.inputs[0] for layer in layers}
    found: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for batch in batches:
        for name, value in layerwise.tensors(batch):
            if name in wanted and value.size:
                rows = np.asarray(value, dtype=np.float32).reshape(-1, value.shape[-1])
                low, high = found.get(name, (rows[0], rows[0]))
                found[name] = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return found


def fit_smooth_quants(model: onnx.ModelProto, layers: Sequence[Layer], spans: Spans) -> tuple[SmoothQuantScaling, ...]:
    """Return a SmoothQuant scaling of every input of ``layers`` that has spans, in the order of the layers.

    Args:
        model: The prepared model.
        layers: Layers that are ``takes_smooth_quant``.
        spans: ``channel_spans`` of the same layers.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.inputs[0] in spans:
            readers.setdefault(layer.inputs[0], []).append(layer)
    smooth_quants = []
    for tensor, group in readers.items():
        low, high = spans[tensor]
        peaks = [np.abs(array_of(weights[str(layer.weight)])).max(axis=layer.weight_axis) for layer in group]
        factor = _factor(np.maximum(np.abs(low), np.abs(high)), np.max(peaks, axis=0))
        names = tuple(layer.name for layer in group)
        smooth_quants.append(with_range(SmoothQuantScaling(tensor, names, tuple(map(float, factor)), 0.0, 0.0), spans))
    return tuple(smooth_quants)


def with_range(smooth_quant: SmoothQuantScaling, spans: Spans) -> SmoothQuantScaling:
    """Return the SmoothQuant scaling with the range that its product takes on the samples of ``spans``."""
    low, high = spans[smooth_quant.tensor]
    factor = smooth_quant.factor
    return SmoothQuantScaling(
        smooth_quant.tensor, smooth_quant.layers, smooth_quant.factors, float((low * factor).min()), float((high * factor).max())
    )


def divided(weight: NDArray[np.float32], layer: Layer, factor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``weight`` (two axes, float32) with every input channel divided by its factor, (channels,)."""
    return np.asarray(weight / np.expand_dims(factor, layer.weight_axis or 0), dtype=np.float32)


def multiplied(weight: NDArray[np.float32], layer: Layer, factor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo ``divided``."""
    return np.asarray(weight * np.expand_dims(factor, layer.weight_axis or 0), dtype=np.float32)


def _fits(layer: Layer, node: onnx.NodeProto, ranks: Mapping[str, int]) -> bool:
    if layer.op_type not in ("MatMul", "Gemm") or ranks[str(layer.weight)] != 2 or node.input[0] != layer.inputs[0]:  # a matrix
        return False
    return not any(attribute.name == "transA" and attribute.i for attribute in node.attribute)


def _factor(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return f from the magnitudes of the channels of the input and of the weight, (channels,) each; all 1 where either is nothing."""
    if not x.max() or not weight.max():
        return np.ones_like(x)
    x, weight = np.maximum(x, x.max() * SMALLEST), np.maximum(weight, weight.max() * SMALLEST)
    return np.asarray(weight.astype(np.float64) ** (1.0 - ALPHA) / x.astype(np.float64) ** ALPHA, dtype=np.float32)
