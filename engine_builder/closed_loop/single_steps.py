"""What single samples of a model with a state are: whether they could be judged in closed loop, if they were given as sequences."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from calibration.data.dataset import CalibrationSet
from calibration.data.sample_axes import Array
from engine_builder.closed_loop.intake import MOST_SHOWN, pairs_in_words

_TRIED = 16  # pairs of neighbours
_CLOSE = 1e-3  # relative: another runtime may have given the states in the file


class StepOrder(enum.StrEnum):
    """How samples with a state follow each other."""

    UNKNOWN = "unknown"
    IN_ORDER = "in_order"  # what a sample gives of the state is what the next one is given
    GROWING = "growing"  # a step gives a larger state than it takes, so that steps of one form cannot follow each other


def step_order(
    run: Callable[[Mapping[str, Array]], tuple[Array, ...]], samples: CalibrationSet, states: Mapping[str, str], outputs: Sequence[str]
) -> StepOrder:
    """Return how samples follow each other: in order if two of the first pairs do, since sequences end, and samples are held out.

    Args:
        run: Runs the float model, which takes one sample a call, on its feeds; an EngineError where it cannot.
        samples: The samples.
        states: An output -> the input that takes it in the next step.
        outputs: The names of the model's outputs.
    """
    following = 0
    for index in range(min(_TRIED, samples.samples - 1)):
        feeds = samples.take(np.array([index])).feeds()
        given, taken = run(feeds), samples.take(np.array([index + 1])).feeds()
        pairs = [(given[outputs.index(output)], feeds[name], taken[name]) for output, name in states.items()]
        if any(one.shape != own.shape for one, own, _ in pairs):
            return StepOrder.GROWING
        following += all(_is_close(one, other) for one, _, other in pairs) and any(np.any(one) for one, _, _ in pairs)
    return StepOrder.IN_ORDER if following > 1 else StepOrder.UNKNOWN


def single_step_warning(states: Mapping[str, str], order: StepOrder) -> str:
    """Return the warning that a model with a state is judged on single steps only.

    Args:
        states: Its state.
        order: How the samples follow each other.
    """
    found = (
        f"the model has a state ({pairs_in_words(states)}), and the samples are single steps: only single steps were judged, each with the "
        "state in the samples; errors may add up when an engine runs on its own state"
    )
    if order is StepOrder.GROWING:
        names = ", ".join(f"'{taken}'" for taken in list(states.values())[:MOST_SHOWN])
        return (
            f"{found}. The state grows from step to step. To have whole runs judged, give arrays of (sequences, steps, *one step*), "
            f"of tokens (sequences, steps), and leave out {names}, as well as masks and positions"
        )
    names = ", ".join(f"'{taken}'" for taken in list(states.values())[:MOST_SHOWN])
    how = f"give arrays of (sequences, steps, *one step*), and leave out {names}"
    if order is StepOrder.IN_ORDER:
        how += "; these samples seem to be steps in their order: array.reshape(sequences, steps, *array.shape[1:])"
    return f"{found}. To have whole runs judged, {how}"


def _is_close(one: Array, other: Array) -> bool:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return bool(np.linalg.norm(a - b) <= _CLOSE * np.linalg.norm(b))
