"""Runs a model over sequences of steps with its own state: what a step gives of it is what the next step is given.

Sequences of about the same length share the calls of one group. A call always has as many samples as the group: a sequence that has ended
is fed its last step again, and what comes of that is dropped. All begin with caches of one size, so that these stay of one size as they
grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet
from calibration.data.sample_axes import Array, SampleAxes, in_model_form
from calibration.process.worker_threads import in_parallel
from calibration.sequences.step_sequences import first_steps
from engine_builder.backends.base import Runner
from engine_builder.errors import EngineError
from engine_builder.records.closed_loop import ClosedLoop

_OTHER_SIZE = "state '{}': shape {} found after step {}, {} expected: of its size at the start, or longer by one with each step"
_ONE_A_STEP = "Export the model with a state of one size or with a cache that grows by one, or give single steps, each with its state."


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One step of a group of sequences."""

    steps: NDArray[np.int64]  # the sample of each sequence that has not ended, (active,)
    active: NDArray[np.bool_]  # which samples of the call these are, (batch,)
    feeds: dict[str, Array]
    outputs: tuple[Array, ...]  # all of the model's, as it gives them


def run_closed_loop(
    runner: Runner, samples: CalibrationSet, loop: ClosedLoop, *, compared: Sequence[int], axes: SampleAxes, batch: int, workers: int = 1
) -> tuple[Array, ...]:
    """Return the compared outputs of every step, each (steps, ...), in the order of ``samples``.

    Args:
        runner: An open engine that gives all outputs as the model does.
        samples: Every step of the sequences, and the states that these start with.
        loop: How they are run.
        compared: Which outputs are wanted.
        axes: Where the model counts samples.
        batch: Sequences in one call, at least 1.
        workers: Groups at once.

    Raises:
        EngineError: The runtime failed, or a state changes its shape from step to step.
    """

    def one(group: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], list[list[Array]]]:
        order, parts = [], []
        for call in _calls(runner, samples, loop, group):
            outputs = axes.samples_first(call.outputs, batch)
            order.append(call.steps)
            parts.append([_rows(outputs[index], index, call.active) for index in compared])
        return order, parts

    found = list(in_parallel(one, _groups(loop, batch), workers))
    order = np.concatenate([steps for taken, _ in found for steps in taken])
    back = np.argsort(order, kind="stable")
    return tuple(np.concatenate([part[index] for _, parts in found for part in parts])[back] for index in range(len(compared)))


def states_at(
    runner: Runner, samples: CalibrationSet, loop: ClosedLoop, wanted: NDArray[np.int64], *, batch: int, workers: int = 1
) -> dict[str, Array]:
    """Return the state that really comes to some steps of a model that is run in closed loop, each (wanted, *state).

    Args:
        runner: An open float model that gives all outputs as the model does.
        samples: Every step of the sequences.
        loop: How they are run.
        wanted: The samples whose state is wanted, each once; where it grows, all as far from the start as ``samples`` has it.
        batch: Sequences in one call, at least 1.
        workers: Groups at once.

    Raises:
        EngineError: The runtime failed, or a state changes its shape from step to step.
    """
    place = np.full(samples.samples, -1, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    held = {name: np.empty((len(wanted), *samples.inputs[name].shape[1:]), dtype=array.dtype) for name, array in samples.starts.items()}

    def one(group: NDArray[np.int64]) -> None:
        for call in _calls(runner, samples, loop, group):
            places = place[call.steps]
            if (places < 0).all():
                continue
            for name, array in held.items():
                array[places[places >= 0]] = _samples_first(call.feeds[name], samples.axes.get(name, 0))[call.active][places >= 0]

    for _ in in_parallel(one, _groups(loop, batch), workers):
        pass
    return held


def _groups(loop: ClosedLoop, batch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the sequences of each group, the longest first; the last group is filled up with its last sequence."""
    longest_first = np.argsort(-loop.steps, kind="stable")
    for start in range(0, len(longest_first), batch):
        yield longest_first[np.minimum(np.arange(start, start + batch), len(longest_first) - 1)]


def _calls(runner: Runner, samples: CalibrationSet, loop: ClosedLoop, group: NDArray[np.int64]) -> Iterator[_Call]:
    """Yield the calls of a group of sequences, step by step."""
    starts, lengths = first_steps(loop.steps)[group], loop.steps[group]
    is_first = np.concatenate([[True], group[1:] != group[:-1]])  # the others fill the call up
    held = {name: in_model_form(array[group], samples.axes.get(name, 0)) for name, array in samples.starts.items()}
    begun, axes, followers = dict(held), loop.caches.axes, loop.caches.followers
    given = replace(samples, inputs={name: array for name, array in samples.inputs.items() if name not in {*held, *followers}})
    for step in range(int(lengths.max())):
        indices = starts + np.minimum(step, lengths - 1)
        feeds = given.take(indices).feeds()
        for name, state in held.items():
            expected = list(begun[name].shape)
            if name in axes:
                expected[axes[name]] += step
            if state.shape != tuple(expected):
                raise EngineError(_OTHER_SIZE.format(name, state.shape, step, tuple(expected)), fix=_ONE_A_STEP)
            feeds[name] = state.astype(begun[name].dtype, copy=False)
        for name, follower in followers.items():
            cached = next(held[cache].shape[axis] for cache, axis in axes.items())
            feeds[name] = follower.feed(len(group), cached, samples.inputs[name].dtype)
        outputs = runner.run(feeds)
        held = {name: outputs[index] for name, index in loop.states.items()}
        active = is_first & (step < lengths)
        yield _Call(indices[active], active, feeds, outputs)


def _rows(output: Array, index: int, active: NDArray[np.bool_]) -> Array:
    """Return the part of an output, (samples, ...), that belongs to the sequences that have not ended."""
    if output.ndim == 0 or len(output) != len(active):
        raise EngineError(
            f"output {index}: shape {output.shape} found for {len(active)} sequences in a call, expected them on its first axis",
            fix="Export the model with the batch as the first axis of every output, or set the kind of that output to ignore.",
        )
    return output[active]


def _samples_first(array: Array, axis: int | None) -> Array:
    """Return an input as a call takes it with the samples first."""
    return array[None] if axis is None else np.moveaxis(array, axis, 0)
