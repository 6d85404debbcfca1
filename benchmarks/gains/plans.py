"""One plan: a network at a batch size in one assignment, for one type of GPU, and where its predicted time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gains.networks import NETWORKS
from benchmarks.plan_cases import Ranges, assignment_of, ranges_of
from benchmarks.plan_models import Network
from calibration.graph.layers import LayerKind, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import save_model
from engine_builder.backends.kernel_work import multiplies
from engine_builder.backends.nvidia.roofline import kernel_milliseconds
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.config.config import ShapeRange
from engine_builder.engines.paying.paying_layers import paying_layers
from engine_builder.errors import BuildError
from engine_builder.qdq.rules.legalize import legalize
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt

SAMPLES = 2  # random ones, for ranges: latency does not depend on them


@dataclass(frozen=True, slots=True)
class Gain:
    """What a plan is predicted to take."""

    network: str
    batch: int
    gpu: str
    case: str  # "fp16", "int8", "fp8", or one of the latter two "where it pays"
    low_layers: int  # convolutions and products in the low precision
    layers: int  # convolutions and products
    predicted_ms: float
    products_ms: float  # of it, in kernels that multiply
    others_ms: float  # in all other kernels
    kernels: int  # that run on the GPU


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A network with the ranges of its tensors."""

    network: Network
    ranges: Ranges
    sample: tuple[int, ...]


def prepared(name: str) -> Prepared:
    """Return a network of ``NETWORKS`` with ranges on random samples."""
    make, sample = NETWORKS[name]
    model = prepare(make()).model
    source = model.graph.input[0].name
    samples = {source: np.random.default_rng(0).standard_normal((SAMPLES, *sample)).astype(np.float32)}
    network = Network(name, model, find_layers(model), SAMPLES, samples, None, "random samples")
    return Prepared(network, ranges_of(network), sample)


def gain(of: Prepared, batch: int, case: str, backend: TensorRtRtxBackend) -> Gain | str:
    """Return what a plan is predicted to take, or why there is none."""
    network, source = of.network, next(iter(of.network.calibration))
    assignment = _assignment(of, batch, case, backend)
    if not assignment and case != Precision.FP16:
        return "no layer of it is predicted to pay"
    sizes = (batch, *of.sample)
    explicit = rewrite_tensorrt(network.model, network.layers, assignment, of.ranges)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.explicit.onnx")
        save_model(explicit, path)
        try:
            engine = backend.build(path, Path(folder, "engine.plan"), shapes={source: ShapeRange(sizes, sizes, sizes)})
        except BuildError as error:
            return f"the build failed: {error.detail}"
    times = kernel_milliseconds(engine.kernels_at_opt, backend.gpu)
    products = sum(spent for kernel, spent in zip(engine.kernels_at_opt, times, strict=True) if multiplies(kernel))
    reached = legalize(network.model, network.layers, assignment).precisions
    multiplying = [layer.name for layer in network.layers if layer.kind is not LayerKind.RESIDUAL_ADD]
    return Gain(
        network=network.name,
        batch=batch,
        gpu=backend.gpu.name,
        case=case,
        low_layers=sum(reached[name] is not Precision.FP16 for name in multiplying),
        layers=len(multiplying),
        predicted_ms=sum(times),
        products_ms=products,
        others_ms=sum(times) - products,
        kernels=sum(spent > 0.0 for spent in times),
    )


def _assignment(of: Prepared, batch: int, case: str, backend: TensorRtRtxBackend) -> Mapping[str, Precision]:
    word, _, only_paying = case.partition(" ")
    found = assignment_of(of.network, f"all {word}") or {}
    if word == Precision.FP16 or not only_paying:
        return found
    shapes = {name: (batch, *array.shape[1:]) for name, array in of.network.calibration.items()}
    eligible = {name: (precision,) for name, precision in found.items()}
    kept = paying_layers(of.network.model, of.network.layers, eligible, shapes, backend.capabilities).eligible
    return {name: precision for name, precision in found.items() if name in kept}
