"""What a network of some kind brings: its model, its samples, and how its user measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[np.generic]
Samples = Mapping[str, Array]
Outputs = Mapping[str, Array]
LABELS = "labels"  # the array of samples that holds them


@dataclass(frozen=True, slots=True)
class Quality:
    """One measure, 0 to 1, of an engine's outputs on unseen samples."""

    kept: float  # the float model's own answers being the truth
    truth: float  # against labels


class Measure(Protocol):
    """The user's measure."""

    def __call__(self, outputs: Outputs, reference: Outputs) -> Quality:
        """Return the quality of an engine's outputs, those of the float model being the reference."""


@dataclass(frozen=True, slots=True)
class Data:
    """Samples of the job, and samples that it never sees."""

    calibration: Samples
    validation: Samples | None  # None: the job holds out a part of the calibration samples
    unseen: Samples


def of_one_input(name: str, calibration: Array, validation: Array, unseen: Array) -> Data:
    """Return the samples of a network with one input."""
    return Data({name: calibration}, {name: validation}, {name: unseen})


@dataclass(frozen=True, slots=True)
class Case:
    """One network and its data; samples are first in every array."""

    name: str
    model: onnx.ModelProto
    data: Data
    measure: Measure
    measure_name: str
    batch: int
    config: Mapping[str, object] = field(default_factory=dict)  # beside the batch and the budget
    batch_axes: Mapping[str, int] = field(default_factory=dict)  # of outputs whose first axis does not count samples
    drive: Callable[[Callable[[Samples], Outputs]], Outputs] | None = None  # how unseen samples are run, where it is not a batch at a time
    call: Samples | None = None  # what one call takes, where it is not a batch of calibration samples
