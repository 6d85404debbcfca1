"""Which axis of each input may count samples, as far as the declared sizes and the arrays tell; running the model tells the rest.

An array has samples first and then the axes of the model's input without its axis of samples: (samples, layers, hidden) for a recurrent
state of (layers, batch, hidden). The axis may also be there with size 1, behind the samples. Rules:

1. Where an input's first axis has an open size, only axes of open size may count samples; else also one that is fixed to 1, or to the
   size that another input fixes on its first axis. A first axis of fixed size may not where another one is named like a batch.
2. The array fits an axis if its own sizes are those that the model fixes on the others.
3. An array of every axis of the input behind the samples fits an input without an axis of samples: a call then takes one sample.
4. Guesses are made for all inputs together, the likeliest first: the axis of a size that is named like a batch, or that another input has
   on its first axis; else the first axis.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from calibration.data.sample_axes import Array
from calibration.onnx_model.model_io import TensorSpec

Axes = dict[str, int | None]
Dims = tuple[int | str | None, ...]

MOST_GUESSES = 4
_BATCH_NAMES = re.compile(r"n|b|bs|bsz|.*batch.*|(num_)?samples?", re.IGNORECASE)


def possible_axes(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> tuple[Axes, ...]:
    """Return guesses of the axis of samples of every input, the likeliest first; none where an array fits no axis.

    Args:
        specs: The model's inputs that have an array of samples.
        shapes: Of the arrays, (samples, ...), one sample's shape with the axis of samples left out or of size 1.
    """
    firsts = {spec.name: {other.shape[0] for other in specs if other is not spec and other.shape} for spec in specs}
    fitting = {spec.name: fitting_axes(spec, shapes[spec.name], firsts[spec.name]) for spec in specs}
    if not all(fitting.values()):
        return ()

    def guess(name: str | None) -> Axes:
        return {spec.name: _likeliest(spec, fitting[spec.name], name, firsts[spec.name]) for spec in specs}

    names = dict.fromkeys(
        dim for spec in specs for axis, dim in enumerate(spec.shape) if isinstance(dim, str) and axis in fitting[spec.name]
    )
    first = {spec.shape[0] for spec in specs if spec.shape}
    likely = sorted(names, key=lambda name: (not is_batch_name(name), name not in first))  # stable: else in the order of the inputs
    guesses = [guess(name) for name in likely if is_batch_name(name) or name in first] + [guess(None)]
    for axis in range(1, max(len(spec.shape) for spec in specs)):  # rarer forms, for running the model to decide
        allowed = {spec.name: axis in fitting[spec.name] and _is_open(spec, axis) for spec in specs}
        guesses.append({spec.name: axis if allowed[spec.name] else guesses[0][spec.name] for spec in specs})
    return tuple(dict(pairs) for pairs in dict.fromkeys(tuple(one.items()) for one in guesses))[:MOST_GUESSES]


def fitting_axes(spec: TensorSpec, shape: tuple[int, ...], firsts: Collection[int | str | None]) -> tuple[int | None, ...]:
    """Return the axes that may count samples, by rules 1 to 3; None among them where the input has no such axis.

    Args:
        spec: The input.
        shape: Of its array.
        firsts: The first dimensions of all other inputs.
    """
    if not spec.has_rank:
        return (0,) if shape else ()
    dims, own = spec.shape, shape[1:]
    if not dims:
        return (None,) if own in ((), (1,)) else ()
    allowed = [axis for axis in range(len(dims)) if _may_count(spec, axis, firsts)]
    if len(own) == len(dims) - 1:
        return tuple(axis for axis in allowed if _fits(own, dims[:axis] + dims[axis + 1 :]))
    if len(own) != len(dims):
        return ()
    of_one = tuple(axis for axis in allowed if own[axis] == 1 and _fits(own[:axis] + own[axis + 1 :], dims[:axis] + dims[axis + 1 :]))
    is_batched = bool(dims) and isinstance(dims[0], str) and is_batch_name(dims[0])
    return of_one or ((None,) if _fits(own, dims) and not is_batched else ())


def without_axis_of_one(array: Array, spec: TensorSpec, axis: int | None) -> Array:
    """Return samples without the axis that counts them in the model, where the array has it with size 1 behind the samples.

    Args:
        array: (samples, ...).
        spec: The input.
        axis: Where the model counts samples.
    """
    if spec.has_rank and not spec.shape:
        return array.reshape(len(array))
    is_there = axis is not None and spec.has_rank and array.ndim == len(spec.shape) + 1
    return array.reshape(*array.shape[: axis + 1], *array.shape[axis + 2 :]) if axis is not None and is_there else array


def is_batch_name(name: str) -> bool:
    """Return whether a size is named like a number of samples."""
    return _BATCH_NAMES.fullmatch(name) is not None


def _may_count(spec: TensorSpec, axis: int, firsts: Collection[int | str | None]) -> bool:
    dims = spec.shape
    if axis == 0 and isinstance(dims[0], int) and dims[0] != 1 and any(isinstance(dim, str) and is_batch_name(dim) for dim in dims):
        return False
    return axis == 0 or _is_open(spec, axis) or (isinstance(dims[0], int) and (dims[axis] == 1 or dims[axis] in firsts))


def _likeliest(spec: TensorSpec, fitting: Sequence[int | None], name: str | None, firsts: Collection[int | str | None]) -> int | None:
    """Return the likeliest axis of an input where the size called ``name`` counts samples; None: where no name tells."""
    axes = [axis for axis in fitting if axis is not None]

    def unlikely(axis: int) -> tuple[bool, bool, bool, int]:
        dim = spec.shape[axis] if spec.has_rank else None
        is_odd = isinstance(dim, int) and dim != 1 and dim not in firsts
        return name is None or dim != name, is_odd, name is not None and dim is not None, axis

    return min(axes, key=unlikely) if axes else None


def _is_open(spec: TensorSpec, axis: int) -> bool:
    return not spec.has_rank or not isinstance(spec.shape[axis], int)


def _fits(sizes: Sequence[int], dims: Dims) -> bool:
    return all(not isinstance(dim, int) or dim == size for size, dim in zip(sizes, dims, strict=True))
