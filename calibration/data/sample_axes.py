"""Where a model's inputs and outputs count samples, and the two ways between that and samples first, the form of everything else.

A call takes *feeds*: every input in the model's own form. An input's axis of samples need not be the first (a recurrent state of (layers,
batch, hidden)), and it may have none: a setting of the whole job, or a model that takes one sample a call. What comes out is brought into
samples-first form, (samples, ...), before anything is compared:

1. an output with an axis of samples: that axis moves to the front; one with several entries a sample (samples times tokens) is split;
2. an output without one, in a call of one sample: all of it belongs to that sample;
3. an output without one, in a call of several samples, stays as it is: nothing of it is compared;
4. an axis of classes moves to the end where it is known not to be there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class OutputAxis:
    """Where one output counts samples."""

    axis: int | None = 0  # None: nowhere
    entries: int = 1  # of that axis that belong to one sample, neighbours of each other
    classes: int | None = None  # an axis that moves to the end, since it counts classes; None: none moves

    def __post_init__(self) -> None:
        """Check the bounds."""
        if (self.axis is not None and self.axis < 0) or self.entries < 1:
            raise ValueError(f"axis is {self.axis} and entries {self.entries}, expected none or at least 0, and at least 1")

    def samples_first(self, value: Array, samples: int) -> Array:
        """Return the output of a call in samples-first form, by the rules above.

        Args:
            value: The output, in the model's form.
            samples: In that call.
        """
        axis = self.axis
        if self.classes is not None:
            value = np.ascontiguousarray(np.moveaxis(value, self.classes, -1))
            axis = axis - 1 if axis is not None and axis > self.classes else axis
        if axis is None:
            return value[None] if samples == 1 else value
        if axis:
            value = np.ascontiguousarray(np.moveaxis(value, axis, 0))
        return value if self.entries == 1 else value.reshape(-1, self.entries, *value.shape[1:])

    def place_first(self, axis: int) -> int:
        """Return where another axis of the model's form lies in the samples-first form, where no axis of classes moves."""
        if self.axis is None:
            return axis + 1
        return (axis + 1 if axis < self.axis else axis) + (self.entries > 1)

    def shape_first(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the samples-first shape of an output of this shape; of one without an axis in a call of one sample."""
        if self.axis is None:
            return (1, *shape)
        rest = (*shape[: self.axis], *shape[self.axis + 1 :])
        own = (self.entries,) if self.entries > 1 else ()
        return (shape[self.axis] // self.entries, *own, *rest)


@dataclass(frozen=True, slots=True)
class SampleAxes:
    """Where a model counts samples."""

    inputs: Mapping[str, int | None] = field(default_factory=dict)  # the axis of each; None: it has none; an input left out: the first
    outputs: tuple[OutputAxis, ...] = ()  # of each output; empty: all count samples on the first

    @property
    def are_first(self) -> bool:
        """Whether every input and output counts samples on its first axis."""
        return not any(self.inputs.values()) and None not in self.inputs.values() and all(one == OutputAxis() for one in self.outputs)

    def samples(self, feeds: Mapping[str, Array]) -> int:
        """Return how many samples a call takes; 1 where no input counts them."""
        for name, array in feeds.items():
            axis = self.inputs.get(name, 0)
            if axis is not None and array.ndim > axis:
                return int(array.shape[axis])
        return 1

    def part(self, feeds: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
        """Return the feeds of the samples [start, stop) of a call."""
        cut = {}
        for name, array in feeds.items():
            axis = self.inputs.get(name, 0)
            cut[name] = array if axis is None else array[(slice(None),) * axis + (slice(start, stop),)]
        return cut

    def samples_first(self, outputs: Sequence[Array], samples: int) -> tuple[Array, ...]:
        """Return all outputs of a call, in the model's order, in samples-first form."""
        if not self.outputs:
            return tuple(outputs)
        return tuple(one.samples_first(value, samples) for one, value in zip(self.outputs, outputs, strict=True))


def in_model_form(array: Array, axis: int | None) -> Array:
    """Return samples as one call takes them.

    Args:
        array: (samples, ...).
        axis: Where the model counts samples; None: nowhere, and the first sample is what a call takes.
    """
    if axis is None:
        return np.ascontiguousarray(array[0]) if array.ndim > 1 else array[0:1].reshape(())
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array
