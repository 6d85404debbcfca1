"""Sequences of steps in one set: the steps of all sequences one after another, and how many belong to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet
from calibration.sequences.caches import Caches

Array: TypeAlias = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class StepSequences:
    """Sequences for a model with a state.

    ``steps`` holds every step as one sample, and what each sequence starts with as ``starts``. What later steps are given of the state,
    running the model tells: in its place the steps all have one state, which takes no room (``is_repeated``).
    """

    steps: CalibrationSet
    lengths: NDArray[np.int64]  # steps of each sequence, (sequences,), each at least 1
    states: Mapping[str, str]  # an output -> the input that takes it in the next step
    caches: Caches = field(default_factory=Caches)  # which of the states grow
    is_judged_last: bool = False  # the labels are of whole sequences: a sequence's last step is what they judge

    @property
    def samples(self) -> int:
        """Number of sequences: what is judged."""
        return len(self.lengths)

    @property
    def settings(self) -> Mapping[str, Array]:
        """Inputs that have one value for the whole job."""
        return self.steps.settings

    @property
    def specials(self) -> tuple[str, ...]:
        """What inputs hold besides finite numbers, in words."""
        return self.steps.specials

    def take(self, indices: NDArray[np.int64]) -> StepSequences:
        """Return the sequences at ``indices``, (any length,) int64, in that order."""
        starts = first_steps(self.lengths)
        kept = np.concatenate([np.arange(starts[index], starts[index] + self.lengths[index]) for index in indices])
        taken = replace(self.steps.take(kept), starts={name: array[indices] for name, array in self.steps.starts.items()})
        return replace(self, steps=taken, lengths=self.lengths[indices])


Given: TypeAlias = CalibrationSet | StepSequences  # what a file of samples holds


def first_steps(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each sequence begins among all steps, (sequences,)."""
    return np.cumsum(lengths) - lengths


def steps_of(samples: Given) -> CalibrationSet:
    """Return single samples: those given, or every step of the sequences."""
    return samples.steps if isinstance(samples, StepSequences) else samples


def as_wholes(samples: Given) -> CalibrationSet:
    """Return what may be empty, or a copy of another: samples as they are; of sequences all of their steps, filled up with zeros."""
    if not isinstance(samples, StepSequences):
        return samples
    counting = np.arange(int(samples.lengths.max()))[None, :] < samples.lengths[:, None]
    wholes = {}
    for name, array in samples.steps.inputs.items():
        if name not in samples.states.values() and name not in samples.caches.followers:
            wholes[name] = np.zeros((*counting.shape, *array.shape[1:]), dtype=array.dtype)
            wholes[name][counting] = array
    return CalibrationSet(wholes, None, dict.fromkeys(wholes))
