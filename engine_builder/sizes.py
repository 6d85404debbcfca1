"""How many samples a call takes, and the sizes of every input when an engine is timed.

An axis of an input, the first axis counting samples, has in a timed call

1. the size that the model fixes; else
2. the size that ``shapes.<input>.opt`` gives; else
3. the size that ``opt`` gives to an axis of the same name in another input; else
4. ``batch_size`` for the first axis, the size of the samples for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from calibration.dataset import CalibrationSet
from calibration.errors import InvalidConfigError, InvalidModelError
from calibration.model import TensorSpec
from calibration.session import Array
from engine_builder.config import Config, ShapeRange
from engine_builder.config_schema import nearest


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """Return the number of samples that every call must have, None where the model leaves it open.

    Raises:
        InvalidModelError: Inputs fix different numbers, or none at all (zero).
    """
    sizes = {spec.shape[0]: spec.name for spec in specs if spec.shape and isinstance(spec.shape[0], int)}
    if len(sizes) > 1:
        found = ", ".join(f"'{name}' {size}" for size, name in sizes.items())
        raise InvalidModelError(
            f"model: the inputs fix different sizes on their first axis: {found}; one number of samples expected",
            fix="Export the model with the samples on the first axis of every input.",
        )
    for size, name in sizes.items():
        if size < 1:
            raise InvalidModelError(
                f"model: input '{name}' fixes {size} samples on its first axis, at least 1 expected",
                fix="Export the model with a dynamic first axis.",
            )
    return next(iter(sizes), None)


def whole_batches(samples: CalibrationSet, batch: int) -> CalibrationSet:
    """Return the samples cut to whole batches; fewer than one batch are repeated to fill it."""
    count = max(samples.samples // batch, 1) * batch
    return samples if count == samples.samples else samples.take(np.arange(count) % samples.samples)


def timing_shapes(specs: Sequence[TensorSpec], config: Config, samples: CalibrationSet) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input in a timed call, by the rules above.

    Args:
        specs: The model's inputs.
        config: The job's settings; ``shapes`` and ``batch_size`` count.
        samples: What the inputs of the call are made from.

    Raises:
        InvalidConfigError: ``shapes`` or ``batch_size`` do not fit the model, the samples or each other.
    """
    _check_shapes(specs, config.shapes, samples)
    batch = _timing_batch(specs, config)
    named = {dim: size for spec in specs for dim, axis in _symbols(spec) if (size := _opt(config, spec.name, axis)) is not None}
    shapes = {}
    for spec in specs:
        sizes = list(samples.inputs[spec.name].shape)
        sizes[0] = batch
        for axis in range(1, len(sizes)):
            dim = spec.shape[axis] if spec.shape else None
            if not isinstance(dim, int):  # rule 1: the samples have the fixed sizes already
                sizes[axis] = _opt(config, spec.name, axis) or named.get(dim or "", sizes[axis])
        shapes[spec.name] = tuple(sizes)
    return shapes


def profile_shapes(
    specs: Sequence[TensorSpec], config: Config, timed: Mapping[str, tuple[int, ...]], samples: CalibrationSet
) -> dict[str, ShapeRange]:
    """Return, for each input with an open axis, the sizes that an engine with such a range accepts: smallest, timed and largest.

    They are those of ``shapes``. Without, the first axis may have any size up to the timed one, and every other axis the timed one alone;
    the size that an axis has in the samples is taken in in any case, since accuracy is measured with it.

    Args:
        specs: The model's inputs.
        config: The job's settings.
        timed: ``timing_shapes``.
        samples: What accuracy is measured on.
    """
    spans = {}
    for spec in specs:
        opt, given, sizes = timed[spec.name], config.shapes.get(spec.name), samples.inputs[spec.name].shape
        is_open = [not isinstance(dim, int) for dim in spec.shape]
        if any(is_open):
            low = list(given.min if given is not None else opt)
            high = list(given.max if given is not None else opt)
            if is_open[0] and given is None:
                low[0] = 1
            for axis in range(1, len(opt)):
                low[axis], high[axis] = min(low[axis], sizes[axis], opt[axis]), max(high[axis], sizes[axis], opt[axis])
            spans[spec.name] = ShapeRange(tuple(low), opt, tuple(high))
    return spans


def timed_call(samples: CalibrationSet, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the inputs of one timed call: real samples, cut or repeated from the start on every axis to the shapes."""
    return {name: _resized(array, shapes[name]) for name, array in samples.inputs.items()}


def _resized(array: Array, shape: Sequence[int]) -> Array:
    for axis, size in enumerate(shape):
        if array.shape[axis] != size:
            array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return np.ascontiguousarray(array)


def _timing_batch(specs: Sequence[TensorSpec], config: Config) -> int:
    fixed = fixed_batch(specs)
    if fixed is not None:
        if config.batch_size not in (1, fixed):  # 1 is the default, so it says nothing
            raise InvalidConfigError(
                f"batch_size: found {config.batch_size}, expected {fixed}: the model's first axis is fixed to {fixed}",
                fix=f"Leave batch_size out, or export the model with a dynamic first axis to serve batches of {config.batch_size}.",
            )
        return fixed
    wanted = {name: sizes.opt[0] for name, sizes in config.shapes.items()}
    if len(set(wanted.values())) > 1:
        found = ", ".join(f"{name} {size}" for name, size in wanted.items())
        raise InvalidConfigError(
            f"shapes: found different sizes of the first axis in opt: {found}; one number of samples expected",
            fix="Give the first axis of every input the same opt size.",
        )
    batch = next(iter(wanted.values()), config.batch_size)
    if config.batch_size not in (1, batch):
        raise InvalidConfigError(
            f"batch_size: found {config.batch_size}, expected {batch}, the size of the first axis in shapes",
            fix="Leave batch_size out, or give the same number in both places.",
        )
    return batch


def _check_shapes(specs: Sequence[TensorSpec], shapes: Mapping[str, ShapeRange], samples: CalibrationSet) -> None:
    known = {spec.name: spec for spec in specs}
    named: dict[str, tuple[str, int]] = {}
    for name, sizes in shapes.items():
        if name not in known:
            near = nearest(name, known)
            raise InvalidConfigError(
                f"shapes: found input '{name}', expected one of {', '.join(repr(known_name) for known_name in known)}",
                fix=f"Did you mean '{near}'?" if near else "Name an input of the model.",
            )
        array = samples.inputs[name]
        if len(sizes.opt) != array.ndim:
            raise InvalidConfigError(
                f"shapes.{name}: found {len(sizes.opt)} axes, expected {array.ndim}", fix="Name every axis, the samples first."
            )
        for axis, (low, opt, high) in enumerate(zip(sizes.min, sizes.opt, sizes.max, strict=True)):
            dim = known[name].shape[axis] if known[name].shape else None
            if isinstance(dim, int) and not low == opt == high == dim:
                raise InvalidConfigError(
                    f"shapes.{name}: found {low} to {high} on axis {axis}, expected {dim}: the model fixes it",
                    fix=f"Give {dim} in min, opt and max, or export the model with that axis dynamic.",
                )
            if axis and not low <= array.shape[axis] <= high:
                raise InvalidConfigError(
                    f"shapes.{name}: axis {axis} of the samples has size {array.shape[axis]}, expected {low} to {high}",
                    fix="Widen the range, or upload samples of a size inside it.",
                )
            other, size = named.setdefault(dim, (name, opt)) if isinstance(dim, str) else (name, opt)
            if size != opt:
                raise InvalidConfigError(
                    f"shapes.{name}: found opt {opt} on axis {axis}, expected {size}: the model calls it '{dim}', as an axis of '{other}'",
                    fix="Give axes of the same name the same size.",
                )


def _symbols(spec: TensorSpec) -> Iterator[tuple[str, int]]:
    return ((dim, axis) for axis, dim in enumerate(spec.shape) if isinstance(dim, str))


def _opt(config: Config, name: str, axis: int) -> int | None:
    return config.shapes[name].opt[axis] if name in config.shapes else None
