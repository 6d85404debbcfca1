r"""What a change of a layer's weight does to the means of its output's channels, which bias correction undoes.

A layer is linear in its weight, so E[y_c(x, w + d)] - E[y_c(x, w)] = E[y_c(E[x], d)]: the mean over samples goes to the input, and one run
of the layer's own node on the mean sample tells the shift for any d. The samples are those that engines are corrected on.

The mean over an output's positions goes to the input of a convolution too: all that counts is the mean of what lies under each place of its
kernel, and the node runs once, on one window. Whole mean inputs of a network for large pictures are hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import BiasLocation
from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Unit
from calibration.graph.layers import Layer
from calibration.process.array_blocks import block_slices
from calibration.sensitivity.perturbed_model import Pass, ReferenceModel
from calibration.sensitivity.simulated_layers import Floats, float_layer


class MeanInputs:
    """The mean of the input of every layer with a bias location. Safe to use from several threads."""

    def __init__(self, reference: ReferenceModel, locations: Sequence[BiasLocation], batches: Iterable[Mapping[str, Array]]) -> None:
        """Run the float model.

        Args:
            reference: The float model in pieces.
            locations: Bias locations of its layers.
            batches: The feeds of each batch.
        """
        self._reference = reference
        self._locations = {location.layer: location for location in locations}
        units = {unit.layer.name: unit for unit in reference.graph.units}
        own = {name: self._own(units[name]) for name in self._locations if name in units}
        rows_last = {name for name, model in own.items() if _is_transposed(model)}
        kernels = {name: tuple(reference.graph.initializer(str(units[name].layer.weight)).dims[2:]) for name in own}
        windows = {name: window for name, model in own.items() if (window := _window(model, kernels[name])) is not None}
        totals: dict[str, NDArray[np.float64]] = {}
        counts: dict[str, int] = {}

        def see(run: Pass) -> None:
            for probe in run.probes():
                if (location := self._locations.get(probe.layer.name)) is not None:
                    x = np.asarray(probe.inside[probe.layer.inputs[0]], dtype=np.float32)
                    known = totals.get(location.layer, np.zeros(()))
                    if location.layer in windows:
                        totals[location.layer] = known + windows[location.layer].mean_of_sum(x)
                        counts[location.layer] = counts.get(location.layer, 0) + len(x)
                        continue
                    axes = (0,) if location.axis == 1 else tuple(range(x.ndim - 1))
                    axes = (1,) if location.layer in rows_last else axes
                    total = _finite_or_zero(x).sum(axis=axes, keepdims=True, dtype=np.float64)
                    if known.shape in ((), total.shape):  # of inputs whose size depends on their values, those as large as the first
                        totals[location.layer] = known + total
                        counts[location.layer] = counts.get(location.layer, 0) + x.size // max(total.size, 1)

        for batch in batches:
            see(reference.begin(batch))
        self._means = {name: np.asarray(total / max(counts[name], 1), dtype=np.float32) for name, total in totals.items()}
        self._pieces = {name: Piece(_on_one_window(own[name]) if name in windows else own[name]) for name in self._means}

    def shift(self, layer: Layer, change: Floats) -> Floats | None:
        """Return what bias correction adds to the layer's output, (channels,), when its weight changes; None where there is no bias.

        Args:
            layer: The layer.
            change: Of its weight, the same shape.
        """
        if layer.name not in self._means:
            return None
        tensors: dict[str, Array] = {layer.inputs[0]: self._means[layer.name], str(layer.weight): change}
        if layer.bias is not None:
            tensors[layer.bias] = np.zeros_like(self._reference.graph.array(layer.bias))
        (output,) = self._pieces[layer.name].run(tensors).values()
        moved = np.moveaxis(np.asarray(output, dtype=np.float64), self._locations[layer.name].axis, -1)
        return np.asarray(-moved.reshape(-1, moved.shape[-1]).mean(axis=0), dtype=np.float32)

    def _own(self, unit: Unit) -> onnx.ModelProto:
        layer = replace(unit.layer, output=self._locations[unit.layer.name].output, nodes=unit.layer.nodes[:1])
        return float_layer(self._reference.graph, Unit(layer, unit.start, unit.start + 1))


def _is_transposed(model: onnx.ModelProto) -> bool:
    """Return whether the layer is a Gemm that reads its input with rows and columns changed: its rows are the last axis."""
    return any(attribute.name == "transA" and attribute.i for node in model.graph.node for attribute in node.attribute)


@dataclass(frozen=True, slots=True)
class _Window:
    """What a convolution reads for one position of its output; one number for each axis of a picture, pads for both ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    def mean_of_sum(self, values: Floats) -> NDArray[np.float64]:
        """Return ``mean`` of the sum of some samples, (samples, channels, *size); what is not finite counts as 0."""
        parts = block_slices(values.shape[1], values.nbytes)
        return np.concatenate(
            [self.mean(_finite_or_zero(values[:, part]).sum(axis=0, keepdims=True, dtype=np.float64)) for part in parts], axis=1
        )

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean, over all positions, of what lies under each place of the kernel.

        Args:
            values: (1, channels, *size).

        Returns:
            (1, channels, *kernel).
        """
        axes = len(self.kernel)
        padded = np.pad(values, [(0, 0), (0, 0), *zip(self.pads[:axes], self.pads[axes:], strict=True)])
        reach = [(size - 1) * dilation for size, dilation in zip(self.kernel, self.dilations, strict=True)]
        means = np.zeros((*values.shape[:2], *self.kernel))
        for place in np.ndindex(*self.kernel):
            starts = [index * dilation for index, dilation in zip(place, self.dilations, strict=True)]
            stops = [start + size - far for start, size, far in zip(starts, padded.shape[2:], reach, strict=True)]
            under = padded[:, :, *(slice(*some) for some in zip(starts, stops, self.strides, strict=True))]
            means[:, :, *place] = under.mean(axis=tuple(range(2, 2 + axes)))
        return means


def _window(model: onnx.ModelProto, kernel: tuple[int, ...]) -> _Window | None:
    """Return the window of a convolution; None of any other layer, and where the runtime is to find the pads."""
    node = model.graph.node[0]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type != "Conv" or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    ones = (1,) * len(kernel)
    strides, dilations = (tuple(attributes.get(name, ones)) for name in ("strides", "dilations"))
    return _Window(kernel, strides, dilations, tuple(attributes.get("pads", (0,) * 2 * len(kernel))))


def _on_one_window(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model of a convolution that reads one window, its places side by side."""
    node = model.graph.node[0]
    kept = [attribute for attribute in node.attribute if attribute.name == "group"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return model


def _finite_or_zero(values: Floats) -> Floats:
    is_finite = np.isfinite(values)
    return values if is_finite.all() else np.where(is_finite, values, np.float32(0.0))
