"""What the first stage makes of sequences: single steps to calibrate on, the loop to judge in, and what the user is told of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.metrics import Metric, OutputKind
from calibration.data.dataset import CalibrationSet
from calibration.data.sample_axes import Array
from calibration.sequences.step_sequences import Given, StepSequences
from engine_builder.closed_loop.run_scores import by_worst_step
from engine_builder.records.closed_loop import ClosedLoop

MOST_STEPS = 4096  # that a model is calibrated on, where ``calibration.samples`` says nothing
MOST_BYTES = 256 * 2**20  # of such steps, states included
LEAST_STEPS = 256
MOST_SHOWN = 4  # pairs of a state that a note names


def loop_of(samples: Given, outputs: Sequence[str]) -> ClosedLoop | None:
    """Return how sequences are run; None for single samples.

    Args:
        samples: What the user gave.
        outputs: The names of the model's outputs.
    """
    if not isinstance(samples, StepSequences):
        return None
    states = {taken: outputs.index(output) for output, taken in samples.states.items()}
    return ClosedLoop(states, tuple(int(length) for length in samples.lengths), samples.is_judged_last, samples.caches)


def some_steps(steps: CalibrationSet, most: int | None, seed: int) -> NDArray[np.int64]:
    """Return which steps to calibrate on, mixed, so that the first of them come from all sequences and from all parts of them.

    Args:
        steps: Every step of the sequences.
        most: As the user said; None: MOST_STEPS, or as many as MOST_BYTES hold, but no fewer than LEAST_STEPS.
        seed: Of the order.
    """
    step_bytes = sum(int(array[:1].nbytes) for array in steps.inputs.values())
    fitting = max(MOST_BYTES // max(step_bytes, 1), LEAST_STEPS)
    order = np.random.default_rng(seed).permutation(steps.samples)
    return order[: most or min(fitting, MOST_STEPS)].astype(np.int64)


def with_states(steps: CalibrationSet, states: Mapping[str, Array]) -> CalibrationSet:
    """Return steps with these states, each (steps, *state), or (1, *state) for all of them."""
    given = {name: np.broadcast_to(array, (steps.samples, *array.shape[1:])) for name, array in states.items()}
    return replace(steps, inputs={**steps.inputs, **given})


def with_states_as_values(kinds: Sequence[OutputKind], loop: ClosedLoop | None, given: Sequence[int]) -> tuple[OutputKind, ...]:
    """Return the kinds of the outputs, those that are a state being values, whatever ends them; of caches that grow nothing is compared.

    Args:
        kinds: Of all outputs.
        loop: How sequences are run.
        given: Outputs whose kind the user said.
    """
    if loop is None:
        return tuple(kinds)
    states = set(loop.states.values()) - set(given)
    known = [OutputKind.VALUES if index in states and kind is not OutputKind.IGNORE else kind for index, kind in enumerate(kinds)]
    return tuple(OutputKind.IGNORE if index in loop.growing else kind for index, kind in enumerate(known))


def judged_kinds(kinds: Mapping[int, OutputKind], loop: ClosedLoop | None) -> tuple[OutputKind, ...]:
    """Return the kinds of the compared outputs as the metric sees them: a state is judged by what it does to the others over the run.

    A model that gives nothing but its state is judged by that.

    Args:
        kinds: Of the compared outputs, by their place among all.
        loop: How sequences are run.
    """
    states = set() if loop is None else set(loop.states.values())
    if all(index in states or kind is OutputKind.IGNORE for index, kind in kinds.items()):
        return tuple(kinds.values())
    return tuple(OutputKind.IGNORE if index in states else kind for index, kind in kinds.items())


def pairs_in_words(states: Mapping[str, str]) -> str:
    """Return pairs of a state for a sentence: "output 'hn' is the next step's 'h0'"."""
    pairs = [f"output '{output}' is the next step's '{taken}'" for output, taken in list(states.items())[:MOST_SHOWN]]
    more = len(states) - len(pairs)
    return ", ".join(pairs) + (f", and {more} more" if more > 0 else "")


def loop_notes(sequences: StepSequences, metric: Metric, scored: Sequence[Array], cached: int | None = None) -> tuple[str, ...]:
    """Return what the user is told of sequences.

    Args:
        sequences: The validation set.
        metric: The job's.
        scored: The float model's outputs that it reads, each (steps, ...).
        cached: Steps in the caches of a timed call; None: nothing grows.
    """
    held = "" if cached is None else f" with {cached:,} others in the cache, half of the median calibration sequence"
    if sequences.is_judged_last:
        counts = "its last step, which its label is of"
    elif by_worst_step(metric, scored):
        counts = "its worst step"
    else:
        counts = "the mean over its steps"
    return (
        f"the model has a state ({pairs_in_words(sequences.states)}): {sequences.samples} validation sequences of "
        f"{int(sequences.lengths.min())} to {int(sequences.lengths.max())} steps are run in closed loop, every engine with its own state; "
        f"a sequence counts by {counts}; latencies are of one step{held}",
    )


def judged_steps(loop: ClosedLoop | None, samples: int) -> NDArray[np.int64]:
    """Return the samples whose answers count: all, or the last step of each sequence where labels are of whole sequences.

    Args:
        loop: How sequences are run; None: the samples are single ones.
        samples: Samples, or steps of all sequences.
    """
    if loop is None or not loop.is_judged_last:
        return np.arange(samples)
    return np.cumsum(loop.steps) - 1
