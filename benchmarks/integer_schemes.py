"""What int8 weights cost in accuracy and time on this processor, by how they are rounded: ``python -m benchmarks.integer_schemes``.

Every layer quantized, no corrections, four ways in one run: weights of full range; in 7 bits, which onnxruntime's documentation advises
where kernels saturate; with the pair bound (``calibration.number_formats.pair_bound``); and full range with ``session.x64quantprecision``,
which has onnxruntime compute unsigned by unsigned. A model of your own: ``--model M --calibration C --validation V --batch N``.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.scores import score
from calibration.data.dataset import CalibrationSet, read_samples
from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from calibration.onnx_model.model_io import input_specs, read_model, save_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.onnxruntime.cpu import session_options
from engine_builder.backends.onnxruntime.integer_kernels import measured_kernels
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.timing import relative_latency, time_interleaved
from examples.fashion_mnist.prepare import MODELS, write_calibration, write_validation

FLOAT = "float"
BATCH = 64  # samples in a call when accuracy is measured
EXAMPLES = (("mobilenetv2", 1), ("mobilenetv2", 64), ("resnet20", 64))  # network, samples in a timed call
TIMING_SECONDS = 8.0
MIN_RUNS, MAX_RUNS = 18, 3000
SEVEN_BITS = 63
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Case:
    """A network and its data."""

    name: str
    model: Path
    calibration: Path
    validation: Path
    batch: int  # samples in a timed call


@dataclass(frozen=True, slots=True)
class Row:
    """One way to round the weights of one network."""

    network: str
    scheme: str
    top1: float | None  # where there are labels
    agreement: float  # share of samples with the float model's top class
    kl: float
    sqnr_db: float
    ratio: float  # CPU time of a run by that of the float model, one thread, in turns
    mad: float  # of the ratio: median absolute deviation over groups of rounds


def main() -> int:
    """Measure every case, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment() | {"integer_kernels": measured_kernels().value}
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as folder:
        rows: list[Row] = []
        for case in _cases(arguments, Path(folder)):
            print(f"{case.name} ...", flush=True)
            rows += measure(case, Path(tempfile.mkdtemp(dir=folder)))
    day = datetime.datetime.now(tz=datetime.UTC).date()
    name = f"integer-schemes-{where['integer_kernels']}"
    for written in write_results(
        name, {"environment": where, "rows": [asdict(r) for r in rows]}, page(rows, where), arguments.output, day=day
    ):
        print(written)
    return 0


def measure(case: Case, folder: Path) -> list[Row]:
    """Return a row for each scheme; all engines of a network are timed in turns."""
    prepared = prepare(read_model(case.model)).model
    layers = find_layers(prepared)
    specs = input_specs(read_model(case.model))
    calibration, validation = read_samples(case.calibration, specs), read_samples(case.validation, specs)
    save_model(prepared, folder / "prepared.onnx")
    ranges = collect_ranges(folder / "prepared.onnx", layers, calibration.batches(BATCH), method=RangeMethod.MINMAX).ranges
    ranges = ranges_of_moved_tensors(prepared, ranges)
    quantized = {layer.name: Precision.INT8 for layer in layers}

    def engine(scheme: Scheme) -> onnx.ModelProto:
        return rewrite(prepared, layers, quantized, ranges, scheme)

    full = engine(ONNXRUNTIME_CPU_SCHEME)
    bound = engine(replace(ONNXRUNTIME_CPU_SCHEME, bounds_pairs=True))
    models = {FLOAT: prepared, "full range": full, "7 bits": in_seven_bits(full, prepared, layers), "pair bound": bound, "U8U8": full}
    sessions = {
        name: _session(model, folder / f"{index}.onnx", is_precise=name == "U8U8") for index, (name, model) in enumerate(models.items())
    }
    outputs = {name: _outputs(session, validation) for name, session in sessions.items()}
    feeds = {name: array[np.arange(case.batch) % len(array)] for name, array in validation.inputs.items()}
    calls = {name: functools.partial(session.run, None, feeds) for name, session in sessions.items()}
    timings = time_interleaved(calls, seconds=TIMING_SECONDS, min_runs=MIN_RUNS, max_runs=MAX_RUNS, compared_by=time.thread_time)
    rows = []
    for name in models:
        relative = relative_latency(timings[name], timings[FLOAT])
        noise = np.mean((outputs[name] - outputs[FLOAT]) ** 2, dtype=np.float64)
        signal = np.mean(outputs[FLOAT] ** 2, dtype=np.float64)
        rows.append(
            Row(
                case.name,
                name,
                None
                if validation.labels is None
                else float(score(Metric.TOP1, (outputs[name],), (outputs[FLOAT],), validation.labels).mean()),
                float(score(Metric.AGREEMENT, (outputs[name],), (outputs[FLOAT],), None).mean()),
                float(losses((OutputKind.LOGITS,), (outputs[FLOAT],), (outputs[name],)).mean()),
                float(10 * np.log10(signal / noise)) if noise else float("inf"),
                relative.ratio,
                relative.mad,
            )
        )
    return rows


def in_seven_bits(explicit: onnx.ModelProto, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
    """Return a copy of the explicit model whose weights have levels of -63..63, with scales to match.

    Args:
        explicit: Every layer quantized, full range.
        prepared: The model that it was made from.
        layers: Its layers.
    """
    work = onnx.ModelProto()
    work.CopyFrom(explicit)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in prepared.graph.initializer}
    tensors = {tensor.name: tensor for tensor in work.graph.initializer}
    made = {name: node for node in work.graph.node for name in node.output}
    nodes = {node.name: node for node in work.graph.node}
    for layer in layers:
        if layer.weight is None:
            continue
        for dequantize in (made[name] for name in nodes[layer.name].input if name in made and made[name].input[0] in tensors):
            values, scale = (tensors[name] for name in dequantize.input[:2])
            wider = np.asarray(numpy_helper.to_array(scale) * (127 / SEVEN_BITS), dtype=np.float32)
            if values.data_type == onnx.TensorProto.INT32:  # a bias, whose scale is that of the products
                fewer = np.round(numpy_helper.to_array(values) * (SEVEN_BITS / 127)).astype(np.int32)
                values.CopyFrom(numpy_helper.from_array(fewer, values.name))
                scale.CopyFrom(numpy_helper.from_array(wider, scale.name))
                continue
            shape = [-1 if axis == layer.weight_axis else 1 for axis in range(weights[layer.weight].ndim)]
            levels = np.round(weights[layer.weight] / (wider.reshape(shape) if wider.ndim else wider))
            values.CopyFrom(numpy_helper.from_array(np.clip(levels, -SEVEN_BITS, SEVEN_BITS).astype(np.int8), values.name))
            scale.CopyFrom(numpy_helper.from_array(wider, scale.name))
    return work


def page(rows: Sequence[Row], where: Mapping[str, object]) -> str:
    """Return the page of results."""
    headers = ["network", "weights", "top-1", "agreement", "KL", "SQNR, dB", "time / float"]
    cells = [
        [
            row.network,
            row.scheme,
            "" if row.top1 is None else f"{row.top1:.4f}",
            f"{row.agreement:.4f}",
            f"{row.kl:.5f}",
            "" if np.isinf(row.sqnr_db) else f"{row.sqnr_db:.1f}",
            f"{row.ratio:.3f} ± {row.mad:.3f}",
        ]
        for row in rows
    ]
    return (
        "# Rounding of int8 weights\n\n"
        f"Every layer in int8, no corrections. {environment_line(where)} Its integer kernels are **{where['integer_kernels']}**.\n\n"
        + markdown_table(headers, cells)
    )


def _session(model: onnx.ModelProto, path: Path, *, is_precise: bool) -> onnxruntime.InferenceSession:
    save_model(model, path)
    options = session_options(1)
    if is_precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _outputs(session: onnxruntime.InferenceSession, samples: CalibrationSet) -> NDArray[np.float32]:
    """Return the first output on all samples, (samples, ...)."""
    return np.concatenate([np.asarray(session.run(None, dict(batch))[0], dtype=np.float32) for batch in samples.batches(BATCH)])


def _cases(arguments: argparse.Namespace, folder: Path) -> tuple[Case, ...]:
    if arguments.model is not None:
        return (Case(arguments.model.stem, arguments.model, arguments.calibration, arguments.validation, arguments.batch),)
    calibration, validation = write_calibration(folder), write_validation(folder)
    return tuple(Case(f"{name}, batch {batch}", MODELS[name], calibration, validation, batch) for name, batch in EXAMPLES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.integer_schemes", description="Compare ways to round int8 weights.")
    parser.add_argument("--model", type=Path, help="a network with logits as its first output; the examples by default")
    parser.add_argument("--calibration", type=Path, help="its calibration file")
    parser.add_argument("--validation", type=Path, help="its validation file")
    parser.add_argument("--batch", type=int, default=1, help="samples in a timed call (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
