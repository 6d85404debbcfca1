"""Runs an engine over a whole set of samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet, SampleShare
from calibration.data.sample_axes import SampleAxes
from calibration.errors import InvalidModelError
from calibration.process.worker_threads import in_parallel, processors
from calibration.sequences.step_sequences import first_steps
from engine_builder.backends.base import Backend, Runner
from engine_builder.closed_loop.run_sequences import run_closed_loop
from engine_builder.errors import EngineError
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.records.closed_loop import ClosedLoop

RUNS_BYTES = 256 << 20  # of the activations of runs that go on at once, where that is room for more than one
LARGE_BYTES = 1 << 20  # of a call's inputs: from here on activations are tens of megabytes
ACTIVATIONS = 16  # that are alive at once, in sizes of the input: of a detector at 640 pixels 13, of ResNet50 at 224 pixels 15


def run_all(runner: Runner, samples: CalibrationSet | SampleShare, *, batch: int, workers: int = 1) -> tuple[NDArray[np.generic], ...]:
    """Return the outputs for all samples, each (samples * rows of one sample, ...), in the model's output order.

    Every run gets exactly ``batch`` samples, as engines of a fixed batch demand: the last batch is filled up with the last sample, and what
    comes out for the filling is cut off.

    Args:
        runner: An open engine that gives samples first (``ComparedOutputs``).
        samples: At least one sample.
        batch: Samples in one run, at least 1.
        workers: Runs at once at most; more than one only where the target's engines allow it (``Capabilities.parallel_runs``).

    Raises:
        InvalidModelError: An output has no axis of samples in front.
        EngineError: The runtime failed.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1")
    if samples.samples < 1:
        raise EngineError("evaluation: no samples, expected at least one", fix="give the evaluation some samples")

    run_giving_back = runner.run_giving_back if isinstance(runner, ComparedOutputs) else runner.run
    starts = range(0, samples.samples, batch)
    is_large = batch * _sample_bytes(samples) >= LARGE_BYTES

    def one(start: int) -> list[NDArray[np.generic]]:
        indices = np.minimum(np.arange(start, start + batch), samples.samples - 1)
        kept = min(batch, samples.samples - start)
        is_first_or_last = start == starts[-1] or (start == 0 and is_large)
        outputs = (run_giving_back if is_first_or_last else runner.run)(samples.take(indices).feeds())
        return [_rows(output, index, batch, kept) for index, output in enumerate(outputs)]

    whole: list[NDArray[np.generic]] = []  # of all samples: a list of parts and their concatenation would be there twice
    # No other is to go on beside one that gives back: what both took stays else.
    first, last = (1, max(len(starts) - 1, 1)) if is_large else (0, len(starts))
    inner = in_parallel(one, starts[first:last], runs_at_once(samples, batch, workers))
    made = itertools.chain(map(one, starts[:first]), inner, map(one, starts[last:]))
    for start, rows in zip(starts, made, strict=True):
        kept = min(batch, samples.samples - start)
        whole = whole or [np.empty((len(part) // kept * samples.samples, *part.shape[1:]), part.dtype) for part in rows]
        for index, (all_rows, part) in enumerate(zip(whole, rows, strict=True)):
            if part.shape[1:] != all_rows.shape[1:] or part.dtype != all_rows.dtype:
                raise InvalidModelError(
                    f"model: output {index} has shape {part.shape} in one call and rows of {all_rows.shape[1:]} before, expected one size",
                    fix="export the model with outputs of a fixed size, or set the kind of that output to 'ignore'",
                )
            each = len(part) // kept
            all_rows[start * each : (start + kept) * each] = part
    return tuple(whole)


def runs_at_once(samples: CalibrationSet | SampleShare, batch: int, most: int) -> int:
    """Return how many runs may go on at once, at most ``most``: each has activations of its own, which for pictures are large.

    Args:
        samples: Of which each run has some.
        batch: Samples in a run.
        most: Runs, at least 1.
    """
    return max(1, min(most, RUNS_BYTES // max(ACTIVATIONS * batch * _sample_bytes(samples), 1)))


def run_judged(
    runner: Runner,
    samples: CalibrationSet,
    loop: ClosedLoop | None,
    *,
    compared: Sequence[int],
    axes: SampleAxes,
    batch: int,
    is_batch_fixed: bool,
    workers: int = 1,
) -> tuple[NDArray[np.generic], ...]:
    """Return the compared outputs of an engine for all samples, each (samples, ...): in closed loop where they are steps of sequences.

    Args:
        runner: An open engine that gives all outputs as the model does.
        samples: At least one.
        loop: How sequences are run; None: the samples are single ones.
        compared: Which outputs are wanted.
        axes: Where the model counts samples.
        batch: Samples in one run, at least 1.
        is_batch_fixed: Every run must have as many; else there are no more than sequences.
        workers: Runs at once.

    Raises:
        InvalidModelError: An output has no axis of samples in front.
        EngineError: The runtime failed.
    """
    if loop is None:
        return run_all(ComparedOutputs(runner, compared, axes), samples, batch=batch, workers=workers)
    together = batch if is_batch_fixed else min(batch, len(loop.lengths))
    return run_closed_loop(runner, samples, loop, compared=compared, axes=axes, batch=together, workers=workers)


def in_random_order(
    samples: CalibrationSet, loop: ClosedLoop | None, rng: np.random.Generator
) -> tuple[CalibrationSet, ClosedLoop | None, NDArray[np.int64]]:
    """Return the samples, or the sequences that they are steps of, in a random order; and where each of them is now, (samples,).

    Args:
        samples: At least one.
        loop: How sequences are run; None: the samples are single ones.
        rng: Draws the order.
    """
    if loop is None:
        order = rng.permutation(samples.samples).astype(np.int64)
        return samples.take(order), None, np.argsort(order)
    order, starts = rng.permutation(len(loop.lengths)), first_steps(loop.steps)
    steps = np.concatenate([np.arange(starts[index], starts[index] + loop.steps[index]) for index in order])
    mixed = replace(samples.take(steps), starts={name: array[order] for name, array in samples.starts.items()})
    return mixed, replace(loop, lengths=tuple(loop.lengths[index] for index in order)), np.argsort(steps)


def run_workers(backend: Backend) -> int:
    """Return how many runs of one engine may go on at once on this machine."""
    return processors() if backend.capabilities.parallel_runs else 1


def _sample_bytes(samples: CalibrationSet | SampleShare) -> int:
    inputs = (samples.whole if isinstance(samples, SampleShare) else samples).inputs
    return sum(int(array[:1].nbytes) for array in inputs.values())


def _rows(output: NDArray[np.generic], index: int, batch: int, kept: int) -> NDArray[np.generic]:
    """Return the rows of the first ``kept`` samples of one output."""
    if output.ndim == 0 or output.shape[0] % batch:
        raise InvalidModelError(
            f"model: output {index} has shape {output.shape} for a batch of {batch}, expected the samples on its first axis",
            fix="export the model with the batch as the first axis of every output, or set the kind of that output to 'ignore'",
        )
    return output[: kept * (output.shape[0] // batch)]
