"""A prepared model with everything that probes of it need, its ranges found by plain numpy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.accuracy.metrics import OutputKind
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from calibration.sensitivity.perturbed_model import Probe, ReferenceModel
from calibration.sensitivity.task_losses import losses
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from tests.model_text import Array, run

# The symmetric grids of TensorRT in the dialect of ONNX Runtime; the dialect of TensorRT has tests of its own.
SYMMETRIC_SCHEME = Scheme(symmetric_activations=True, quantized_outputs=())


@dataclass(frozen=True, slots=True, eq=False)
class Probed:
    """A prepared model, samples for it, and what follows from the two."""

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    feeds: Mapping[str, Array]
    ranges: Mapping[str, tuple[float, float]]
    scheme: Scheme = ONNXRUNTIME_CPU_SCHEME
    smooth_quants: tuple[SmoothQuantScaling, ...] = ()

    def reference(self, units_per_block: int = 4, *, lean: bool = False) -> ReferenceModel:
        """Return the cut model; a lean one keeps nothing that it can compute again, as those of large models do."""
        made = functools.partial(ReferenceModel, tail_bytes=-1, kept_bytes=-1) if lean else ReferenceModel
        return made(self.model, self.layers, self.ranges, self.scheme, self.smooth_quants, units_per_block=units_per_block)

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if name in (layer.name, layer.output))

    def outputs(self) -> list[Array]:
        """Return the float model's outputs, without any optimization."""
        return run(self.model, self.feeds)

    def explicit_outputs(self, *quantized: Layer) -> list[Array]:
        """Return the outputs of the graph that the engine would be made of, without any optimization."""
        assignment = {layer.name: Precision.INT8 for layer in quantized}
        return run(rewrite(self.model, self.layers, assignment, self.ranges, self.scheme, self.smooth_quants), self.feeds)

    def explicit_loss(self, kinds: tuple[OutputKind, ...], *quantized: Layer) -> NDArray[np.float64]:
        return losses(kinds, self.outputs(), self.explicit_outputs(*quantized))


def probed(model: onnx.ModelProto, feeds: Mapping[str, Array], scheme: Scheme = ONNXRUNTIME_CPU_SCHEME) -> Probed:
    """Prepare ``model`` and find its layers, and their ranges on ``feeds``."""
    ready = prepare(model).model
    layers = find_layers(ready)
    values = layer_tensors(ready, layers, feeds)
    ranges = ranges_of_moved_tensors(ready, {name: (float(array.min()), float(array.max())) for name, array in values.items()})
    return Probed(ready, layers, feeds, ranges, scheme)


def layer_tensors(model: onnx.ModelProto, layers: tuple[Layer, ...], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the inputs and outputs of every layer, computed without any optimization."""
    names = sorted({name for layer in layers for name in (*layer.inputs, layer.output)} - feeds.keys())
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    read = {name for layer in layers for name in layer.inputs} & feeds.keys()
    return dict(zip(names, run(tapped, feeds), strict=True)) | {name: feeds[name] for name in read}


def probe_of(reference: ReferenceModel, feeds: Mapping[str, Array], layer: Layer) -> Probe:
    return next(probe for probe in reference.begin(feeds).probes() if probe.layer == layer)


def assert_close(found: Array, expected: Array, *, atol: float = 1e-5) -> None:
    """Equal but for the order of sums in fused kernels."""
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-4, atol=atol)
