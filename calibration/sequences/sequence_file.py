"""Makes samples of the arrays of a file, which may be sequences of steps.

For a model with a state (``state_pairs``) a file holds sequences where

1. it leaves inputs out, and each of them is a state: it starts at zero; or
2. it leaves nothing out, and an array fits the model's input only with an axis of steps behind that of the sequences.

Then an input that changes from step to step is (sequences, steps, *one step*); one that fits only without the axis of steps holds for all
steps of a sequence: (sequences, *one step*). A state that is given, (sequences, *state*), is the state that each sequence starts with.
Of a decoder, whose cache grows by a token a step (``caches``), tokens may be (sequences, steps); its mask and positions are left out.
``lengths``, (sequences,), says how many steps of each count; what follows them is filling. ``labels`` are (sequences,), of the last step,
or (sequences, steps).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import Array, extra_name, in_type_of, samples_from
from calibration.data.input_axes import fitting_axes, is_batch_name, without_axis_of_one
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec
from calibration.sequences.caches import Caches, cached_steps, found_caches
from calibration.sequences.state_pairs import States, given_states, named_states, states_left_out
from calibration.sequences.step_sequences import Given, StepSequences

_TOKEN_RANK = 2  # (samples, tokens)


def samples_or_sequences(
    arrays: Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    state: Mapping[str, str],
    *,
    any_labels: bool = False,
) -> Given:
    """Return the samples of a file, or its sequences by the rules above.

    Args:
        arrays: Of the file by name, one per input that is no state.
        inputs: Of the model.
        outputs: Of the model.
        state: What the user says of its state: the input that takes each output in the next step.
        any_labels: As for ``samples_from``.

    Raises:
        InvalidCalibrationSetError: The arrays do not fit the model.
        InvalidConfigError: ``state`` does not fit the model.
    """
    left_out = [spec.name for spec in inputs if spec.name not in arrays]
    known = {spec.name for spec in inputs} | {extra_name(name, inputs) for name in ("labels", "lengths")}
    given, named = given_states(state, inputs, outputs), named_states(inputs, outputs, left_out)
    states = given or named
    if not given and left_out:
        states = {**states_left_out(inputs, outputs, left_out), **states}
    caches = found_caches(states, inputs, outputs, arrays)
    if caches.axes:
        arrays = _token_by_token(arrays, inputs, caches)
    taken = set(states.values()) | set(caches.followers)
    is_left_out = bool(left_out) and taken.issuperset(left_out) and known.issuperset(arrays)
    has = {
        spec.name: _has_steps(arrays[spec.name], spec, inputs, prefer=is_left_out)
        for spec in inputs
        if spec.name in arrays and spec.name not in taken
    }
    with_steps = [name for name, has_steps in has.items() if has_steps]
    if with_steps and (is_left_out or (states and not left_out)):
        return _sequences(arrays, inputs, states, caches, with_steps, any_labels=any_labels)
    if is_left_out and (given or {*named.values(), *caches.followers}.issuperset(left_out)):
        raise _without_steps(arrays, inputs, states)
    if left_out and states and known.issuperset(arrays):
        _check_pairs(left_out, taken)
    return samples_from(arrays, inputs, any_labels=any_labels, states=taken)


def _sequences(
    arrays: Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    states: States,
    caches: Caches,
    with_steps: Sequence[str],
    *,
    any_labels: bool,
) -> StepSequences:
    """Return the sequences of a file; ``with_steps`` are the inputs whose arrays have an axis of steps."""
    arrays = dict(arrays)
    length_name, label_name = extra_name("lengths", inputs), extra_name("labels", inputs)
    sizes = {name: arrays[name].shape[:2] for name in with_steps}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"'{name}' {count} sequences of {steps} steps" for name, (count, steps) in sizes.items())
        raise InvalidCalibrationSetError(
            f"sequences: {found} found, the same numbers in each array expected",
            fix="Give every input that changes from step to step the same sequences and steps; fill shorter ones up, and add `lengths`.",
        )
    count, most = sizes[with_steps[0]]
    lengths = _lengths(arrays.pop(length_name, None), count, most, length_name)
    counting = np.arange(most)[None, :] < lengths[:, None]  # (sequences, steps)
    flat: dict[str, Array] = {name: arrays[name][counting] for name in with_steps}
    labels = arrays.pop(label_name, None)
    is_last = labels is not None and labels.shape[:2] != (count, most)
    if labels is not None:
        flat[label_name] = _of_each_step(labels, lengths) if is_last else labels[counting]
    starts: dict[str, Array] = {}
    cached = held = cached_steps(lengths)
    for spec in inputs:
        if spec.name in states.values():
            starts[spec.name] = _starting(arrays.get(spec.name), spec, inputs, flat, count, caches.axes.get(spec.name))
            filled = starts[spec.name][:1]
            if spec.name in caches.axes:
                filled, held = _filled(filled, spec, caches.axes[spec.name], cached)
            flat[spec.name] = np.broadcast_to(filled, (int(lengths.sum()), *filled.shape[1:]))
    for spec in inputs:
        if spec.name in caches.followers:
            one = caches.followers[spec.name].feed(1, held, np.dtype(spec.dtype))
            flat[spec.name] = np.broadcast_to(one, (int(lengths.sum()), one.shape[1]))
        elif spec.name in states.values():
            continue
        elif spec.name not in with_steps:
            flat[spec.name] = _of_each_step(arrays[spec.name], lengths)
    flat |= {name: array for name, array in arrays.items() if name not in flat}  # names of no input, which is said
    steps = samples_from(flat, inputs, any_labels=any_labels, states={*states.values(), *caches.followers})
    known = {spec.name: spec for spec in inputs}
    starts = {name: without_axis_of_one(array, known[name], steps.axes.get(name, 0)) for name, array in starts.items()}
    return StepSequences(replace(steps, starts=starts), lengths, states, caches, is_last)


def _token_by_token(arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], caches: Caches) -> dict[str, Array]:
    """Return the arrays of a decoder, (sequences, steps) of tokens with an axis of one token a step."""
    found = dict(arrays)
    for spec in inputs:
        is_open = spec.has_rank and len(spec.shape) == _TOKEN_RANK and not isinstance(spec.shape[1], int)
        if is_open and spec.name in found and found[spec.name].ndim == _TOKEN_RANK and spec.name not in caches.axes:
            found[spec.name] = found[spec.name][..., None]
    return found


def _filled(start: Array, spec: TensorSpec, axis: int, cached: int) -> tuple[Array, int]:
    """Return a cache of zeros, (1, *cache*), with ``cached`` more steps in it than at the start; and how many that are in all."""
    place = axis + start.ndim - len(spec.shape)  # behind the sequences, the cache may have its axis of samples or not
    held = start.shape[place] + cached
    return np.zeros((*start.shape[:place], held, *start.shape[place + 1 :]), dtype=start.dtype), held


def _has_steps(array: Array, spec: TensorSpec, inputs: Sequence[TensorSpec], *, prefer: bool) -> bool:
    """Return whether an array has an axis of steps behind that of the sequences; where both fit, whether that is preferred."""
    if array.ndim < 2 or not array.size:
        return False
    firsts = {other.shape[0] for other in inputs if other is not spec and other.shape}
    if not spec.has_rank:
        return prefer
    if not fitting_axes(spec, (array.shape[0] * array.shape[1], *array.shape[2:]), firsts):
        return False
    return prefer or not fitting_axes(spec, array.shape, firsts)


def _of_each_step(array: Array, lengths: NDArray[np.int64]) -> Array:
    """Return what is given for each sequence for each of its steps; anything else as it is, for a check to see."""
    return np.repeat(array, lengths, axis=0) if array.shape[:1] == lengths.shape else array


def _lengths(given: Array | None, count: int, most: int, name: str) -> NDArray[np.int64]:
    if given is None:
        return np.full(count, most, dtype=np.int64)
    if given.shape != (count,) or given.dtype.kind not in "iu" or int(given.min(initial=1)) < 1 or int(given.max(initial=1)) > most:
        found = f"{given.dtype.name} of shape {given.shape}" + (f", from {given.min()} to {given.max()}" if given.size else "")
        raise InvalidCalibrationSetError(
            f"array '{name}': {found} found, whole numbers of shape ({count},) from 1 to {most} expected: the steps of each sequence",
            fix="Give the number of steps that count for each sequence; what follows them is filling.",
        )
    return given.astype(np.int64)


def _starting(
    given: Array | None, spec: TensorSpec, inputs: Sequence[TensorSpec], flat: Mapping[str, Array], count: int, grows_on: int | None
) -> Array:
    """Return the state that each sequence starts with, (sequences, *state): zero, of a cache that grows empty, where it is not given."""
    if given is None:
        return np.zeros((count, *_shape_of_one(spec, inputs, flat, grows_on)), dtype=np.dtype(spec.dtype))
    if given.shape[:1] != (count,):
        raise InvalidCalibrationSetError(
            f"array '{spec.name}': shape {given.shape} found, expected ({count}, ...): the state that each sequence starts with",
            fix="Give one starting state for each sequence, or leave the array out to start at zero.",
        )
    return in_type_of(given, spec)


def _shape_of_one(spec: TensorSpec, inputs: Sequence[TensorSpec], flat: Mapping[str, Array], grows_on: int | None) -> tuple[int, ...]:
    """Return the shape of the state of one step, its axis of samples being 1 and the one that it grows on 0.

    An open size is that of the same name in an array of the file; one that is left over counts samples.
    """
    others = [one for one in inputs if one.name in flat and one.shape]
    named = {
        dim: flat[one.name].shape[axis]
        for one in others
        if flat[one.name].ndim == len(one.shape)
        for axis, dim in enumerate(one.shape)
        if axis and isinstance(dim, str) and not is_batch_name(dim)
    }
    batches = {one.shape[0] for one in others if isinstance(one.shape[0], int) and one.shape[0] > 1}
    sizes: list[int] = []
    left_over = 0
    for axis, dim in enumerate(spec.shape):
        if axis == grows_on:
            sizes.append(0)
        elif isinstance(dim, int):
            is_batch = dim in batches and all(isinstance(one, int) for one in spec.shape)
            sizes.append(1 if is_batch else dim)
            batches -= {dim} if is_batch else set()
        elif dim in named:
            sizes.append(named[dim])
        else:
            sizes.append(1)
            left_over += 1
    if not spec.has_rank or left_over > 1:
        found = ", ".join("any" if dim is None else str(dim) for dim in spec.shape) if spec.has_rank else "any shape"
        raise InvalidCalibrationSetError(
            f"array '{spec.name}': left out, so that this state starts at zero, but the model leaves its shape open: ({found})",
            fix=f"Give the state that each sequence starts with: an array '{spec.name}' of (sequences, *the shape of one state*).",
        )
    return tuple(sizes)


def _check_pairs(left_out: Sequence[str], taken: Collection[str]) -> None:
    """Refuse a file that leaves out a state and an input that is none."""
    states, lost = ([name for name in left_out if (name in taken) is is_state] for is_state in (True, False))
    if states and lost:
        raise InvalidCalibrationSetError(
            f"array '{lost[0]}': missing; {', '.join(map(repr, states))} may be left out, being the model's state, but no output of the "
            f"model is found that the next step takes as '{lost[0]}'",
            fix=f"Add an array called '{lost[0]}', or say which output it takes: state: {{output: {lost[0]}}}, with all other pairs.",
        )


def _without_steps(arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], states: States) -> InvalidCalibrationSetError:
    spec = next(one for one in inputs if one.name not in states.values())
    found = f"shape {arrays[spec.name].shape}" if spec.name in arrays else "nothing"
    left_out = ", ".join(repr(name) for name in states.values() if name not in arrays)
    return InvalidCalibrationSetError(
        f"array '{spec.name}': {found} found; the state {left_out} is left out, so that the samples are sequences, and (sequences, steps, "
        f"*one step*) is expected",
        fix="Cut what runs through the model in one go into sequences: array.reshape(sequences, steps, *array.shape[1:]). Or give the "
        "state of every single step, too.",
    )
