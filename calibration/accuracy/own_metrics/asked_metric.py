"""A user's own metric that another process evaluates: a Python function of the process that began the job.

The process of a stage has the outputs, the caller's process has the function. The stage asks, a few hundred samples at a time, over a
socket that the metric's file names; the function never comes here, so it may be one of a script or of a notebook.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.own_metrics.asking import BrokenMessageError, Message, receive, send
from calibration.accuracy.own_metrics.sample_scores import (
    CHECKED_SAMPLES,
    ROUNDING,
    check_scores,
    checked_scores,
    sound_samples,
    with_reference,
)
from calibration.codec import json_from_value, value_from_json
from calibration.errors import CalibrationError, InvalidMetricError, error_from_problem
from calibration.execution.onnxruntime_session import Array

SUFFIX = ".json"  # of the file, which no upload has
SCORES = "scores"
LABELS = "labels"
OUTPUT, REFERENCE = "output:", "reference:"  # before the names of arrays in a question
BATCH = 256  # samples in one question
WHAT = "metric"
_FIX = "Let the score of a sample depend on that sample alone, and use no random numbers, or a seed of your own in every call."


@dataclass(frozen=True, slots=True)
class AskedMetricFile:
    """What the file of such a metric holds."""

    socket: str  # the path of the socket
    reads_reference: bool  # whether the function takes the float model's outputs too


class AskedMetric:
    """A metric that another process evaluates. Read-only."""

    def __init__(self, path: Path) -> None:
        """Read the file; nothing is asked yet.

        Args:
            path: A file with the content of ``asked_metric_text``.
        """
        self._file = value_from_json(AskedMetricFile, json.loads(path.read_text(encoding="utf-8")))

    def read(self, outputs: Collection[str], *, is_labelled: bool) -> None:
        """Return None: whatever has a part for each sample may be read by the function."""
        return

    def check(self, outputs: Mapping[str, Array], labels: Array | None) -> None:
        """Refuse a function whose scores are not a sample's own, or other ones when it is called again.

        Args:
            outputs: The float model's, by name, each (samples, ...).
            labels: (samples, ...), if there are any.

        Raises:
            InvalidMetricError: That, or what ``score`` refuses.
        """
        few = {name: array[:CHECKED_SAMPLES] for name, array in outputs.items()}
        moved = {name: np.roll(array, 1, axis=0) for name, array in few.items()}
        some = None if labels is None else labels[:CHECKED_SAMPLES]
        first, second = self.score(moved, few, some), self.score(moved, few, some)
        if (np.abs(first - second) > ROUNDING).any():
            raise InvalidMetricError(
                f"{WHAT}: other scores found when it was called again with the same outputs, expected the same", fix=_FIX
            )
        check_scores(self.score, outputs, labels, WHAT, _FIX)

    def score(self, outputs: Mapping[str, Array], reference: Mapping[str, Array], labels: Array | None) -> NDArray[np.float64]:
        """Return the score of each sample, (samples,), from 0 to 1.

        Args:
            outputs: Of the engine, by name, each (samples, ...).
            reference: The float model's, without NaN. A sample with NaN, or with infinities that are not there too, scores 0.
            labels: (samples, ...), if there are any.

        Raises:
            InvalidMetricError: The function raises, or does not give every sample a score from 0 to 1.
            CalibrationError: Its process does not answer.
        """
        samples = len(next(iter(outputs.values())))
        is_known = np.ones(samples, dtype=np.bool_)
        arrays: dict[str, Array] = {}
        for name, values in outputs.items():
            is_sound = sound_samples(values, reference[name])
            is_known &= is_sound
            arrays[OUTPUT + name] = with_reference(values, is_sound, reference[name])
            if self._file.reads_reference:
                arrays[REFERENCE + name] = reference[name]
        if labels is not None:
            arrays[LABELS] = labels
        parts = [self._ask({name: array[start : start + BATCH] for name, array in arrays.items()}) for start in range(0, samples, BATCH)]
        return checked_scores(np.concatenate(parts), is_known, WHAT)

    def _ask(self, arrays: Mapping[str, Array]) -> NDArray[np.float64]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(self._file.socket)
                send(connection, Message(arrays))
                answer = receive(connection)
        except (OSError, BrokenMessageError) as exc:
            raise CalibrationError(f"{WHAT}: the process that evaluates it does not answer: {exc}", fix="Run the job again.") from exc
        if answer.error is not None:
            raise error_from_problem(answer.error)
        return answer.arrays[SCORES].astype(np.float64, copy=False)


def asked_metric_text(file: AskedMetricFile) -> str:
    """Return the content of the file of such a metric."""
    return json.dumps(json_from_value(file))
