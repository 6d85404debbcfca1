"""Caches that grow: a state that each step gives back longer than it took it, such as a decoder's keys and values of all tokens so far.

A pair of a state grows where input and output have one axis of open size that they call by different names, and that does not count
samples: (batch, heads, past, size) and (batch, heads, total, size). A sequence starts with an empty cache, or with what the user gives.

Inputs that follow from how much is cached, and that the samples leave out, are filled in:

1. an attention mask, (batch, cached + 1), is ones;
2. positions, (batch, 1), are how many are cached.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.data.input_axes import is_batch_name
from calibration.data.sample_axes import Array
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

_FOLLOWING_RANK = 2


class Follower(enum.StrEnum):
    """An input that follows from how much is cached."""

    MASK = "mask"
    POSITIONS = "positions"

    def feed(self, count: int, cached: int, dtype: np.dtype[np.generic]) -> Array:
        """Return the input for one step.

        Args:
            count: Sequences in the call.
            cached: Steps in the cache before this one.
            dtype: Of the input.

        Returns:
            (count, cached + 1) or (count, 1).
        """
        if self is Follower.MASK:
            return np.ones((count, cached + 1), dtype=dtype)
        return np.full((count, 1), cached, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Caches:
    """Which inputs of a model grow from step to step, and which follow from them."""

    axes: Mapping[str, int] = field(default_factory=dict)  # a state -> the axis of the model's form that grows
    followers: Mapping[str, Follower] = field(default_factory=dict)


def found_caches(states: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], given: Collection[str]) -> Caches:
    """Return the caches among the states of a model, with what follows from them.

    Args:
        states: An output -> the input that takes it in the next step.
        inputs: Of the model.
        outputs: Of the model.
        given: The inputs that the samples hold.

    Raises:
        InvalidCalibrationSetError: The samples hold the mask of a model with caches, which has another length at each step.
    """
    known, known_inputs = {spec.name: spec for spec in outputs}, {spec.name: spec for spec in inputs}
    firsts = {spec.shape[0] for spec in inputs if spec.shape and spec.name not in states.values()}
    found = {taken: _growing_axes(known_inputs[taken], known[output], firsts) for output, taken in states.items()}
    axes = {taken: growing[0] for taken, growing in found.items() if len(growing) == 1}
    if not axes:
        return Caches()
    followers = {spec.name: kind for spec in inputs if spec.name not in states.values() and (kind := _follower(spec)) is not None}
    masks = [name for name, kind in followers.items() if kind is Follower.MASK and name in given]
    if masks:
        raise InvalidCalibrationSetError(
            f"array '{masks[0]}': found beside the cache '{next(iter(axes))}', which grows from step to step, so that the mask has another "
            "length at each step; left out expected",
            fix=f"Leave '{masks[0]}' out: it is ones for all that is cached. Give `lengths` for texts of different lengths.",
        )
    return Caches(axes, {name: kind for name, kind in followers.items() if name not in given})


def cached_steps(lengths: NDArray[np.int64]) -> int:
    """Return how many steps are in the cache of the engines when they are timed and probed: half of the median sequence, at least 1.

    Args:
        lengths: Steps of each sequence, (sequences,).
    """
    return max(int(np.median(lengths)) // 2, 1)


def grown_axis(axis: int, samples_axis: int | None) -> int:
    """Return where an axis of the model's form is in an array with samples first."""
    return axis + 1 if samples_axis is None or axis < samples_axis else axis


def _growing_axes(taken: TensorSpec, output: TensorSpec, firsts: Collection[int | str | None]) -> list[int]:
    if not (taken.has_rank and output.has_rank):
        return []
    return [
        axis
        for axis, (one, other) in enumerate(zip(taken.shape, output.shape, strict=True))
        if isinstance(one, str) and not isinstance(other, int) and one != other and not is_batch_name(one) and one not in firsts
    ]


def _follower(spec: TensorSpec) -> Follower | None:
    """Return whether an input is called like a mask or like positions, and has the form of one."""
    name = spec.name.lower()
    if not spec.has_rank or len(spec.shape) != _FOLLOWING_RANK or isinstance(spec.shape[1], int):
        return None
    return Follower.MASK if "mask" in name else Follower.POSITIONS if "position" in name else None
