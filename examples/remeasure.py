"""Measures a downloaded engine again with onnxruntime and numpy alone, so that the report need not be believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

WARM_UP_RUNS = 5
SCORING_BATCH = 500


@dataclass(frozen=True, slots=True)
class Measurement:
    """A model as measured from outside.

    Attributes:
        top1: Share of the samples whose largest output is at the label, 0-1.
        median_ms: Median latency of one batch.
        mad_ms: Median absolute deviation of that latency.
    """

    top1: float
    median_ms: float
    mad_ms: float


def measure(models: Mapping[str, Path], validation: Path, *, batch: int, rounds: int = 60, threads: int = 1) -> dict[str, Measurement]:
    """Return the accuracy on every sample of the validation file and the latency at ``batch`` of each model.

    The models are timed in turns, so that whatever else the machine does hits all of them alike.
    """
    with np.load(validation, allow_pickle=False) as arrays:
        samples, labels = arrays["input"], arrays["labels"]
    sessions = {name: _session(path, threads) for name, path in models.items()}
    timed_batch = samples[:batch]
    latencies = _latencies_ms({name: _call(session, timed_batch) for name, session in sessions.items()}, rounds)
    return {name: Measurement(_top1(session, samples, labels), *_median_and_mad(latencies[name])) for name, session in sessions.items()}


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _call(session: onnxruntime.InferenceSession, batch: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: session.run(None, {"input": batch})


def _latencies_ms(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    latencies: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP_RUNS + rounds):
        for name, call in calls.items():
            call()  # after the other model the caches are cold: not counted
            start = time.perf_counter()
            call()
            if turn >= WARM_UP_RUNS:
                latencies[name].append((time.perf_counter() - start) * 1e3)
    return latencies


def _median_and_mad(values: list[float]) -> tuple[float, float]:
    median = float(np.median(values))
    return median, float(np.median(np.abs(np.asarray(values) - median)))


def _top1(session: onnxruntime.InferenceSession, samples: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    right = 0
    for start in range(0, len(samples), SCORING_BATCH):
        part = slice(start, start + SCORING_BATCH)
        outputs = np.asarray(session.run(None, {"input": samples[part]})[0])
        right += int(np.count_nonzero(outputs.argmax(axis=1) == labels[part]))
    return right / len(samples)
