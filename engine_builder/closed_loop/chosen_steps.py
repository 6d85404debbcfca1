"""The steps of sequences that ranges and probes use, and how the float model comes to the state of each.

1. Of a state of one size: steps from everywhere in the sequences, which are run as they are given.
2. Where a cache grows, all steps must have caches of one length, since arrays of samples have one shape. Each is the last step of a
   stretch of a sequence that begins with an empty cache: of a text, the tokens from any place on. Where sequences begin with something, a
   stretch begins where they do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidCalibrationSetError
from calibration.sequences.caches import grown_axis
from calibration.sequences.step_sequences import first_steps
from engine_builder.backends.base import Capabilities
from engine_builder.closed_loop.intake import MOST_BYTES, some_steps
from engine_builder.errors import UnsupportedModelError
from engine_builder.records.closed_loop import ClosedLoop

MOST_STRETCHES = 512  # each costs the float model as many steps as are cached
LEAST_STRETCHES = 64


@dataclass(frozen=True, slots=True, eq=False)
class ChosenSteps:
    """Sequences to run, and the steps of them that are used."""

    steps: CalibrationSet
    loop: ClosedLoop
    wanted: NDArray[np.int64]  # samples of ``steps``
    cached: int | None  # steps in the cache at each of these; None: nothing grows

    def note(self, given: int) -> str:
        """Return what the user is told.

        Args:
            given: Steps of the sequences in all.
        """
        held = "" if self.cached is None else f", {self.cached:,} steps in its cache"
        return (
            f"ranges and probes use {len(self.wanted)} of the {given} steps of the calibration sequences, each with the state "
            f"that the float model had there{held}"
        )


def chosen_steps(steps: CalibrationSet, loop: ClosedLoop, most: int | None, seed: int) -> ChosenSteps:
    """Return the steps that are used, by the rules above.

    Args:
        steps: Every step of the sequences; their caches have the length that is wanted.
        loop: How the sequences are run.
        most: Steps, as the user said; None: as ``some_steps`` has it, and MOST_STRETCHES, or what MOST_BYTES hold, but no fewer than
            LEAST_STRETCHES.
        seed: Of the choice.

    Raises:
        InvalidCalibrationSetError: A cache grows, and all sequences are too short to fill it.
    """
    if not loop.growing:
        return ChosenSteps(steps, loop, some_steps(steps, most, seed), None)
    name, axis = next(iter(loop.caches.axes.items()))
    place = grown_axis(axis, steps.axes.get(name, 0))
    cached = steps.inputs[name].shape[place]
    before = cached - steps.starts[name].shape[place]
    begins_empty = not any(np.any(array) for array in steps.starts.values())
    firsts = first_steps(loop.steps)
    possible = [
        (sequence, firsts[sequence] + offset)
        for sequence, length in enumerate(loop.lengths)
        for offset in range((length - before) if begins_empty else min(length - before, 1))
    ]
    if not possible:
        raise InvalidCalibrationSetError(
            f"calibration set: {len(loop.lengths)} sequences of at most {max(loop.lengths)} steps found, "
            f"one of at least {before + 1} expected, so that a step has a cache",
            fix="Give whole texts: sequences of many steps.",
        )
    step_bytes = sum(int(array[:1].nbytes) for array in steps.inputs.values())
    fitting = int(np.clip(MOST_BYTES // max(step_bytes, 1), LEAST_STRETCHES, MOST_STRETCHES))
    order = np.random.default_rng(seed).permutation(len(possible))[: most or fitting]
    chosen = np.array([possible[index] for index in order], dtype=np.int64)  # (stretches, 2)
    indices = (chosen[:, 1:] + np.arange(before + 1)).ravel()
    begun = {key: array[chosen[:, 0]] for key, array in steps.starts.items()}
    stretches = replace(loop, lengths=(before + 1,) * len(chosen))
    return ChosenSteps(replace(steps.take(indices), starts=begun), stretches, np.cumsum(stretches.steps) - 1, cached)


def check_growth(loop: ClosedLoop | None, capabilities: Capabilities) -> None:
    """Refuse caches that grow for a target whose engines are built for a range of sizes.

    Raises:
        UnsupportedModelError: The model has such, and the target does not take any size.
    """
    if loop is not None and loop.growing and not capabilities.is_own_baseline:
        raise UnsupportedModelError(
            f"target {capabilities.target!r}: found the cache '{next(iter(loop.caches.axes))}', which grows from step to step; engines of "
            "this target are built for inputs of one size here",
            fix="Use the target 'onnxruntime-cpu', or export the model with a cache of one size and give that as a state.",
        )
