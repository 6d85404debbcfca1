r"""Sequential bias correction: makes the mean of each quantized layer's output, channel by channel, that of the float model again.

Rounding errors do not average to nothing, and a shift of the mean grows from layer to layer. With everything before a layer already
quantized and corrected, the shift of its output is

    b_c = E[y_c] - E[y'_c]          (y: float, y': quantized; E over samples and positions)

and adding b to the layer's bias removes it at no cost in time (DFQ, arXiv 1906.04721, section 4.2, with measured means). The order matters:
corrections that are measured without those before them overshoot. One pass is enough, layer by layer, because what is alive between two
layers is kept for all samples.

Values that are not finite, as masks and padding leave them, count in no mean; a channel without any other is not moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.execution.onnxruntime_session import Array, return_free_activations
from calibration.execution.partition import read_names
from calibration.execution.tensorwise_run import TensorwiseRun
from calibration.graph.layers import Layer
from calibration.graph.type_inference import inferred
from calibration.graph.weightless import weightless_copy
from calibration.process.array_blocks import block_slices

_LARGE_BYTES = 1 << 20  # of a tensor of one batch, of which all batches together are worth giving back


@dataclass(frozen=True, slots=True)
class BiasLocation:
    """Where a layer's mean output can be moved."""

    layer: str
    output: str  # of the layer's own node, before the bias that follows a MatMul and before any activation
    axis: int  # of the channels: 1, or -1 for the last
    bias: str  # the initializer; nothing else reads it


def bias_locations(model: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[BiasLocation, ...]:
    """Return the bias locations of the layers that have one, in the order of the layers.

    That is the bias of a Conv, ConvTranspose or Gemm, or the constant that an Add puts on a MatMul, with one number for each channel.
    Where there is none, a correction would cost a node, so there is no bias location.

    Args:
        model: The prepared model.
        layers: Its layers.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in read_names(node):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    locations = []
    for layer in layers:
        if layer.weight is None or layer.weight_axis is None:
            continue
        node = nodes[layer.name]
        bias, following = layer.bias, readers.get(node.output[0], [])
        if node.op_type == "MatMul" and len(following) == 1 and following[0].op_type == "Add" and node.output[0] not in outputs:
            bias = next((name for name in following[0].input if name in constants), None)
        channels = constants[layer.weight].dims[layer.weight_axis]
        if node.op_type == "ConvTranspose" and bias is not None:
            channels = constants[bias].dims[0]  # the weight has those of one group
        spatial = node.op_type in ("Conv", "ConvTranspose")
        beta = next((float(attribute.f) for attribute in node.attribute if attribute.name == "beta"), 1.0)
        last = node.op_type != "MatMul" or node.input[1] == layer.weight
        if bias is None or not channels or not last or beta != 1.0 or len(readers[bias]) != 1 or bias in outputs:
            continue
        dims = tuple(constants[bias].dims)
        if constants[bias].data_type == onnx.TensorProto.FLOAT and dims and dims[-1] == channels == np.prod(dims):
            locations.append(BiasLocation(layer.name, node.output[0], 1 if spatial else -1, bias))
    return tuple(locations)


def mean_outputs(
    model: onnx.ModelProto, locations: Sequence[BiasLocation], batches: Iterable[Mapping[str, Array]]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each bias location's output in the float model, (channels,), by layer; NaN where a channel holds no finite value.

    Args:
        model: The prepared model.
        locations: Where to look.
        batches: Inputs by name, each (batch, ...); read once.
    """
    tensorwise, alive = (
        TensorwiseRun(model, {location.layer: location.output for location in locations}),
        [dict(batch) for batch in batches],
    )
    return {location.layer: _mean(tensorwise.advance(alive, location.layer), location.axis) for location in locations}


def corrections(
    explicit: onnx.ModelProto,
    locations: Sequence[BiasLocation],
    means: Mapping[str, NDArray[np.float64]],
    batches: Iterable[Mapping[str, Array]],
) -> dict[str, NDArray[np.float32]]:
    """Return what to add to the output of each bias location, (channels,), by layer, in one pass over the samples.

    Args:
        explicit: The model with its roundings written in the graph; its layers have the names of the prepared model's. It gains the type
            of every tensor.
        locations: Those of its quantized layers, in graph order.
        means: ``mean_outputs`` of the same bias locations on the same samples.
        batches: Inputs by name, each (batch, ...). What is alive between two layers is held for all of them.
    """
    outputs = {node.name: node.output[0] for node in explicit.graph.node}
    explicit.graph.value_info.extend(inferred(weightless_copy(explicit)).graph.value_info)
    tensorwise = TensorwiseRun(explicit, {location.layer: outputs[location.layer] for location in locations})
    alive = [dict(batch) for batch in batches]
    found, largest = {}, 0
    for location in locations:
        values = tensorwise.advance(alive, location.layer)
        shift = np.nan_to_num(means[location.layer] - _mean(values, location.axis), nan=0.0).astype(np.float32)
        found[location.layer] = shift
        for tensors in reversed(alive):
            value = values.pop()  # so that the values before and after the shift are there together for one batch alone
            tensors[outputs[location.layer]] = _shifted(value, shift, location.axis)
            largest = max(largest, value.nbytes)
    if largest >= _LARGE_BYTES:
        del tensorwise, alive, tensors, value
        return_free_activations()
    return found


def _shifted(value: Array, shift: NDArray[np.float32], axis: int) -> Array:
    """Return the values of a batch with its shift, (channels,), added; in their own memory where that is possible.

    ONNX Runtime's arrays are in its arena, which keeps what they took for the tensors behind them: others would be beside that.
    """
    shape = [1] * value.ndim
    shape[axis] = -1
    is_own = value.dtype == np.float32 and value.flags.writeable
    shifted = np.add(value, shift.reshape(shape), out=value if is_own else None, dtype=np.float32)
    return np.asarray(shifted).astype(value.dtype, copy=False)


class ChannelMean:
    """The mean of each channel's finite values, batch after batch; NaN where there is none."""

    def __init__(self, axis: int) -> None:
        """Begin without values.

        Args:
            axis: Of the channels.
        """
        self._axis = axis
        self._total, self._count = np.zeros(()), np.zeros(())

    def add(self, values: Array) -> None:
        """Count the values of a batch, (batch, ...)."""
        last = np.moveaxis(values, self._axis, -1)
        totals, counts = [], []
        for part in block_slices(last.shape[-1], values.nbytes):
            rows = last[..., part].reshape(-1, part.stop - part.start)
            is_finite = np.isfinite(rows)
            totals.append(np.where(is_finite, rows, 0).sum(axis=0, dtype=np.float64))
            counts.append(is_finite.sum(axis=0))
        if totals:
            self._total, self._count = self._total + np.concatenate(totals), self._count + np.concatenate(counts)

    def value(self) -> NDArray[np.float64]:
        """Return the means so far, (channels,); at least one batch was counted."""
        return np.asarray(np.divide(self._total, self._count, out=np.full(self._count.shape, np.nan), where=self._count > 0))


def _mean(values: Sequence[Array], axis: int) -> NDArray[np.float64]:
    """Return the mean of each channel's finite values over all batches of (batch, ...) values, NaN where there is none."""
    mean = ChannelMean(axis)
    for value in values:
        mean.add(value)
    return mean.value()
