"""Holds what samples make of the first BatchNormalization against what it saw in training.

A BatchNormalization keeps the mean m and variance v of each channel of its input over the training set. Where the samples are prepared
like the training set, their own mean and variance, m' and v', are near; where a scaling by s is missing, sqrt(v' / v) is about 1 / s.

A difference of a few times counts only where the channels differ among each other as they did in training (their deviations correlate):
statistics that somebody made up, or that were never trained, say nothing else. One beyond all reason always counts.

Only one that comes before the second layer with weights is looked at: deeper ones say more about the network than about its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.errors import CalibrationError
from calibration.execution.onnxruntime_session import Piece
from calibration.graph.topological_sort import captured_names
from calibration.graph.weightless import copy_without

FAR = 2.5  # times in spread, either way, or standard deviations in mean
BEYOND_REASON = 30.0  # the same, whatever the channels are like: pixels of 0..255 where 0..1 or -1..1 is expected are at least 58
ALIKE = 0.8  # least correlation of the channels' deviations with those of training
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
_MOST_SAMPLES = 64
_SMALLEST = 1e-9
_RUNNING_MEAN, _RUNNING_VARIANCE = 3, 4  # inputs of a BatchNormalization

Array = NDArray[np.generic]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FirstStatistics:
    """How the samples differ from what a BatchNormalization saw: medians over its channels."""

    node: str  # name of the BatchNormalization, or of its output
    spread: float  # standard deviation of the samples / that of the training set
    mean: float  # distance of the two means, in standard deviations of the training set
    alike: float  # correlation over the channels of the logarithms of both deviations, -1..1

    @property
    def is_far(self) -> bool:
        """Whether the samples are prepared in another way than the training set was."""
        return self._is_beyond(BEYOND_REASON) or (self._is_beyond(FAR) and self.alike >= ALIKE)

    def _is_beyond(self, times: float) -> bool:
        return self.spread > times or self.spread < 1 / times or self.mean > times


def first_statistics(model: onnx.ModelProto, inputs: Mapping[str, Array], batch: int | None) -> FirstStatistics | None:
    """Return the comparison, None where there is no such BatchNormalization or where the model does not run.

    Args:
        model: The user's model.
        inputs: (samples, ...) by name.
        batch: Samples that a call must have, None where any number will do.
    """
    found = _first(model)
    if found is None:
        return None
    node, needed = found
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        one.output[0]: one.attribute[0].t for one in model.graph.node if one.op_type == "Constant" and one.attribute[0].HasField("t")
    }
    stored = [constants.get(node.input[index]) for index in (_RUNNING_MEAN, _RUNNING_VARIANCE)]
    if stored[0] is None or stored[1] is None:
        return None
    mean, variance = (np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float64) for tensor in stored if tensor is not None)
    try:
        values = _values(_cut(model, needed, node.input[0]) if needed else None, inputs, batch, node.input[0])
    except CalibrationError:
        return None  # said where the whole model is run
    if values.ndim < 2 or not values.size or values.shape[1] != mean.size or not np.isfinite(values).all():
        return None
    channels = np.moveaxis(values, 1, 0).reshape(mean.size, -1)
    deviation = np.sqrt(np.maximum(variance, 0.0) + _epsilon(node))
    own = channels.std(axis=1)
    return FirstStatistics(
        node=node.name or node.output[0],
        spread=float(np.median(own / deviation)),
        mean=float(np.median(np.abs(channels.mean(axis=1) - mean) / deviation)),
        alike=_correlation(np.log(np.maximum(own, _SMALLEST)), np.log(deviation)),
    )


def _first(model: onnx.ModelProto) -> tuple[onnx.NodeProto, Sequence[onnx.NodeProto]] | None:
    """Return the first BatchNormalization with at most one weighted layer before it, and the nodes before it in order."""
    nodes = list(model.graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    for node in nodes:
        if node.op_type != "BatchNormalization" or any(a.name == "training_mode" and a.i for a in node.attribute):
            continue
        needed: set[int] = set()
        waiting = [node.input[0]]
        while waiting:
            index = maker.get(waiting.pop())
            if index is not None and index not in needed:
                needed.add(index)
                waiting += [*nodes[index].input, *captured_names(nodes[index])]
        before = [nodes[index] for index in sorted(needed)]
        weighted = [one for one in before if one.op_type in _WEIGHTED]
        return (node, before) if len(weighted) <= 1 else None
    return None


def _cut(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], output: str) -> onnx.ModelProto:
    """Return the model that ends in ``output``."""
    read = {name for node in nodes for name in (*node.input, *captured_names(node))}
    result = copy_without(model, (tensor.name for tensor in model.graph.initializer if tensor.name not in read))
    del result.graph.node[:], result.graph.output[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    result.graph.output.append(onnx.ValueInfoProto(name=output))
    weights = {tensor.name for tensor in result.graph.initializer}
    inputs = [value for value in result.graph.input if value.name in read and value.name not in weights]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    return result


def _values(model: onnx.ModelProto | None, inputs: Mapping[str, Array], batch: int | None, output: str) -> Floats:
    """Return a tensor, an input where there is no model that makes it, for up to _MOST_SAMPLES samples, evenly chosen."""
    count = len(next(iter(inputs.values())))
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_SAMPLES)).astype(np.int64))
    if model is None:
        return inputs[output][chosen].astype(np.float64)
    piece, size, parts = Piece(model), batch or 1, []
    for start in range(0, len(chosen), size):
        indices = np.minimum(np.arange(start, start + size), len(chosen) - 1)
        feeds = {name: np.ascontiguousarray(array[chosen[indices]]) for name, array in inputs.items()}
        parts.append(piece.run(feeds)[output].astype(np.float64))
    return np.concatenate(parts)


def _correlation(first: Floats, second: Floats) -> float:
    """Return the correlation, 0 where one of the two does not vary."""
    x, y = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > _SMALLEST * x.size else 0.0


def _epsilon(node: onnx.NodeProto) -> float:
    return next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
