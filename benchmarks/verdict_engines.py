"""Engines of the example networks, run on all 10,000 test pictures: what a verdict from a few of them is held against.

A *front* is a row of engines, each faster and usually less accurate than the one before: the first layers of a random order in int8, as the
search builds them, or with weights that went through 4 bits and back (simulated: no CPU kernel has them). Speeds are nominal, so that they
say nothing about a machine: an engine with a share s of its layers quantized takes 1 - 0.5 s of float's time at int8, 1 - 0.6 s at 4 bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.order_judging import quantized_network
from benchmarks.order_measurements import Draw, Kind, Network, measured_draw, read_network
from calibration.data.dataset import read_samples
from calibration.onnx_model.model_io import input_specs, read_model
from engine_builder.backends.onnxruntime.cpu import session_options
from examples.fashion_mnist.prepare import MODELS, write_calibration, write_validation

SHARES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)  # of the layers, quantized
SAVED = {Kind.INT8: 0.5, Kind.INT4: 0.6}  # of float's time, by an engine with every layer quantized
ORDERS = 2  # random orders of each network and precision
BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """Engines of one network, slowest first."""

    name: str
    latency: NDArray[np.float64]  # (engines,), of float's
    reference: NDArray[np.float32]  # (pictures, classes), logits of the float network
    engines: NDArray[np.float32]  # (engines, pictures, classes), logits
    labels: NDArray[np.int64]  # (pictures,)


def example_fronts(names: Sequence[str] = tuple(MODELS), *, orders: int = ORDERS, pictures: int | None = None) -> Iterator[Front]:
    """Yield the fronts of the example networks of these names, ``orders`` random ones for each precision, on so many pictures or all."""
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as scratch:
        folder = Path(scratch)
        calibration, validation = write_calibration(folder), write_validation(folder)
        for name in names:
            specs = input_specs(read_model(MODELS[name]))
            drawn, judged = read_samples(calibration, specs), read_samples(validation, specs)
            assert judged.labels is not None  # ``prepare`` writes them
            labels = judged.labels[:pictures].reshape(-1).astype(np.int64)
            source = next(iter(drawn.inputs))
            shown = np.asarray(judged.inputs[source][:pictures], dtype=np.float32)
            network = read_network(name, MODELS[name], shown.shape[1:])
            draw = measured_draw(network, Kind.INT8, "0", np.asarray(drawn.inputs[source], dtype=np.float32), folder)
            reference = _logits(network, network.model.SerializeToString(), shown)
            for kind in (Kind.INT8, Kind.INT4):
                for seed in range(orders):
                    latency, engines = _front(network, kind, draw, seed, shown)
                    yield Front(f"{name}, {kind.value}, order {seed}", latency, reference, engines, labels)


def _front(
    network: Network, kind: Kind, draw: Draw, seed: int, pictures: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    layer_precisions = network.layer_precisions(kind.precision)
    order = np.random.default_rng(seed).permutation(len(layer_precisions))
    counts = sorted({max(1, round(share * len(layer_precisions))) for share in SHARES})
    engines = []
    for count in counts:
        quantized = [layer_precisions[index] for index in order[:count]]
        engines.append(_logits(network, quantized_network(network, quantized, draw).SerializeToString(), pictures))
    return 1.0 - SAVED[kind] * np.array(counts) / len(layer_precisions), np.stack(engines)


def _logits(network: Network, model: bytes, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, session_options(1), providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run(None, batch)[0]) for batch in network.batches(pictures, BATCH)])
