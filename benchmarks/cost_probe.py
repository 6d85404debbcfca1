"""Measures what the probe stages of a job take on one model; ``benchmarks.cost`` runs it, a process for each model.

Prints JSON. Inputs are made up: what a probe costs depends on shapes alone. One thread, one probe at a time, so that CPU seconds are
those of the work and not of threads that wait.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_forward import plain_forwards
from calibration.accuracy.metrics import OutputKind
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.onnx_model.model_io import TensorSpec, input_specs, output_specs, read_model, save_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from calibration.sensitivity.hessian_trace import measure_traces
from calibration.sensitivity.interactions import measure_pairs, pairs_to_test
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.perturbed_model import Probe, ReferenceModel
from engine_builder.engines.eligible_layers import RANGE_BATCH
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.stages.inspect import probe_batch
from engine_builder.stages.probe import PAIRS_PER_LAYER_PRECISION

Inputs = dict[str, NDArray[np.generic]]
WORDS = 1000  # token ids are below this


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage took.

    ``passes``: runs of the model from a probed layer to its end, each counted once for each sample.
    """

    stage: str
    passes: int
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int  # of the process until the stage's end


@dataclass(frozen=True, slots=True)
class ProbeCost:
    """What all probe stages took on one model."""

    layer_precisions: int
    samples: int  # of single-layer losses
    few: int  # of pairs, and of Hessian traces
    batch: int
    forward_cpu_seconds: float  # one plain forward pass of one sample, at that batch, in turns with the single-layer losses
    stages: tuple[StageCost, ...]


def probe_cost(path: Path, *, shapes: Mapping[str, Sequence[int]], samples: int, few: int) -> ProbeCost:
    """Run the stages on made-up inputs and return what they took.

    Args:
        path: The user's model.
        shapes: Sizes of each input but for the first axis, where the model leaves them open.
        samples: Samples that single layer precisions are probed on.
        few: Of these, samples for pairs, and for Hessian traces in two probes of each tensor.
    """
    source = read_model(path)
    inputs = made_up(input_specs(source), shapes, samples)
    kinds = (OutputKind.LOGITS,) * len(output_specs(source))
    model = prepare(source).model
    del source
    sizes = {name: (1, *array.shape[1:]) for name, array in inputs.items()}
    layers, batch = find_layers(model, sizes), min(probe_batch(model, sizes), samples)
    layer_precisions = tuple(LayerPrecision(layer.name, Precision.INT8) for layer in layers)
    batches = list(_batches(inputs, batch))
    stages: list[StageCost] = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        save_model(model, prepared)
        model = read_model(prepared)  # as a stage finds it, without what the preparation left in memory
        with _measured(stages, "ranges", passes=samples):
            method, small = RangeMethod.MINMAX, _batches(inputs, min(batch, RANGE_BATCH))
            table = collect_ranges(prepared, layers, small, method=method)
        ranges = ranges_of_moved_tensors(model, table.ranges)
        with _measured(stages, "sessions"):
            reference = ReferenceModel(model, layers, ranges, ONNXRUNTIME_CPU_SCHEME)
        del model
        with plain_forwards(prepared) as forwards:
            ahead = iter(batches)
            with _measured(stages, "single-layer losses and Gram matrix"):
                layer_losses = measure_layer_losses(
                    reference, kinds, layer_precisions, batches, on_batch=lambda done: forwards.time(next(ahead))
                )
        with _measured(stages, "pairs"):
            pairs = pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, PAIRS_PER_LAYER_PRECISION * len(layer_precisions))
            alone = {layer_precision: layer_losses.loss[:few, index] for index, layer_precision in enumerate(layer_precisions)}
            first = next(_batches(inputs, few))
            measure_pairs(reference, kinds, layers, pairs, list(_batches(first, batch)), alone)
        with _measured(stages, "Hessian traces"):
            measure_traces(reference, kinds, ONNXRUNTIME_CPU_SCHEME, ranges, list(_batches(first, max(few // 2, 1))), seed=0, most=batch)
    return ProbeCost(len(layer_precisions), samples, few, batch, forwards.sample_seconds, tuple(stages))


def made_up(specs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], samples: int) -> Inputs:
    """Return inputs of the right shapes: normal noise, token ids below ``WORDS``, and masks of ones.

    Raises:
        ValueError: An axis is open and ``shapes`` does not give it.
    """
    rng = np.random.default_rng(0)
    made: Inputs = {}
    for spec in specs:
        is_open = not all(isinstance(size, int) for size in spec.shape[1:])
        sizes = [samples, *(shapes.get(spec.name, spec.shape[1:]) if is_open else spec.shape[1:])]
        fixed = [size for size in sizes if isinstance(size, int)]
        if len(fixed) != len(sizes):
            raise ValueError(f"input '{spec.name}' has open axes {spec.shape[1:]}; its sizes are expected in 'shapes'")
        if not spec.dtype.startswith("int"):
            made[spec.name] = rng.standard_normal(fixed).astype(spec.dtype)
        elif "mask" in spec.name:
            made[spec.name] = np.ones(fixed, spec.dtype)
        elif "type" in spec.name:
            made[spec.name] = np.zeros(fixed, spec.dtype)
        else:
            made[spec.name] = rng.integers(0, WORDS, fixed).astype(spec.dtype)
    return made


@contextmanager
def _measured(stages: list[StageCost], name: str, *, passes: int | None = None) -> Iterator[None]:
    counts: list[int] = []
    with _counted(counts):
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stages.append(StageCost(name, sum(counts) if passes is None else passes, wall, cpu, peak))


@contextmanager
def _counted(counts: list[int]) -> Iterator[None]:
    """Note the samples of every pass that starts from a probed layer."""
    plain = {name: getattr(Probe, name) for name in ("outputs_from", "outputs_with")}

    def counting(name: str) -> None:
        def run(probe: Probe, output: NDArray[np.float32], *rest: object) -> object:
            counts.append(len(output))
            return plain[name](probe, output, *rest)

        setattr(Probe, name, run)

    for name in plain:
        counting(name)
    try:
        yield
    finally:
        for name, method in plain.items():
            setattr(Probe, name, method)


def _batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    for start in range(0, _size(inputs), size):
        yield {name: array[start : start + size] for name, array in inputs.items()}


def _size(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def main() -> None:
    """Measure one model and print JSON."""
    parser = argparse.ArgumentParser(description="Measure what the probe stages take on one model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--shapes", type=json.loads, default={}, help='sizes after the first axis, as JSON: {"input_ids": [48]}')
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--few", type=int, default=16)
    found = parser.parse_args()
    cost = probe_cost(found.model, shapes=found.shapes, samples=found.samples, few=min(found.few, found.samples))
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    main()
