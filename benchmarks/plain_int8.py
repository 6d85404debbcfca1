"""The plain alternative: every operator in int8 by onnxruntime's ``quantize_static``, and both engines beside the float model."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from calibration.accuracy.metrics import Metric
from calibration.accuracy.scores import score
from calibration.data.dataset import CalibrationSet, read_samples
from calibration.onnx_model.model_io import input_specs, read_model
from engine_builder.backends.base import Runner
from engine_builder.backends.registry import backend_for
from engine_builder.config.config import Config
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.evaluation.batch_sizes import fixed_batch, timed_call, timing_shapes
from engine_builder.evaluation.run_samples import run_all
from engine_builder.timing import Timing, relative_latency, time_interleaved

BATCH = 64
TIMING_SECONDS = 6.0
MIN_RUNS, MAX_RUNS = 18, 5000
FLOAT = "float"


def quantize_plainly(model: Path, calibration: Path, output: Path) -> None:
    """Write the model with everything in int8 that onnxruntime quantizes by default: U8S8, per channel, min-max ranges, Q/DQ.

    Args:
        model: The user's model.
        calibration: The file that the job calibrates on; all of its samples are used.
        output: Where to write; a file ``<name>.prepared`` is left beside it.
    """
    specs = input_specs(read_model(model))
    samples = read_samples(calibration, specs)
    prepared = output.with_name(output.name + ".prepared")
    with contextlib.redirect_stdout(io.StringIO()):  # onnxruntime prints
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(output),
            _Reader(samples, fixed_batch(specs) or BATCH),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def compared(models: Mapping[str, Path], validation: Path, config: Config, metric: Metric) -> dict[str, dict[str, float]]:
    """Return accuracy on all validation samples, and latency as a ratio to the float model's, all timed in turns.

    Args:
        models: Files by name, the float model under ``FLOAT``.
        validation: The job's validation file.
        config: The job's settings: batch, shapes and threads of the timed call.
        metric: What accuracy is.
    """
    specs = input_specs(read_model(models[FLOAT]))
    names = config.accuracy.label_names or ()
    samples = read_samples(validation, specs)
    batch = fixed_batch(specs) or BATCH
    feeds = timed_call(samples, timing_shapes(specs, inspect_settings(config), samples))
    backend = backend_for(config.target)
    with contextlib.ExitStack() as stack:
        runners = {name: stack.enter_context(_Open(backend.open(path, threads=config.threads))) for name, path in models.items()}
        outputs = {name: run_all(opened.runner, samples, batch=batch) for name, opened in runners.items()}
        calls = {name: _call(opened.runner, feeds) for name, opened in runners.items()}
        clock = time.thread_time if config.threads == 1 else None
        timings = time_interleaved(calls, seconds=TIMING_SECONDS, min_runs=MIN_RUNS, max_runs=MAX_RUNS, compared_by=clock)
    return {
        name: {
            "accuracy": float(score(metric, found, outputs[FLOAT], samples.labels, label_names=names).mean()),
            **_latency(timings[name], timings[FLOAT]),
        }
        for name, found in outputs.items()
    }


class _Reader:
    """Feeds whole batches to onnxruntime's calibrator, which asks for ``get_next`` alone."""

    def __init__(self, samples: CalibrationSet, batch: int) -> None:
        self._batches: Iterator[dict[str, NDArray[np.generic]]] = samples.batches(batch)
        self._batch = batch

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        """Return the next batch, None after the last; a last one that is not full is filled up with its first samples."""
        found = next(self._batches, None)
        return None if found is None else {name: np.resize(array, (self._batch, *array.shape[1:])) for name, array in found.items()}


class _Open:
    """Closes a runner at the end of a ``with``."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.runner.close()


def _call(runner: Runner, feeds: Mapping[str, NDArray[np.generic]]) -> Callable[[], object]:
    return lambda: runner.run(feeds)


def _latency(timing: Timing, baseline: Timing) -> dict[str, float]:
    relative = relative_latency(timing, baseline)
    return {"median_ms": timing.median_ms, "p95_ms": timing.p95_ms, "runs": timing.runs, "ratio": relative.ratio, "ratio_mad": relative.mad}
