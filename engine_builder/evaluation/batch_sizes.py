"""How many samples a call takes, and the sizes of every input when an engine is timed.

An axis of an input has in a timed call

1. the size that the model fixes; else
2. the size that ``shapes.<input>.opt`` gives; else
3. the size that ``opt`` gives to an axis of the same name in another input; else
4. ``batch_size`` where it counts samples, the size of the samples for the others.

Which axis counts samples, if any, is told by ``CalibrationSet.axes``; settings of the whole job have the shape that they have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidConfigError, InvalidModelError
from calibration.execution.onnxruntime_session import Array
from calibration.onnx_model.model_io import TensorSpec
from engine_builder.config.builder_options import BatchProfile
from engine_builder.config.config import ShapeRange
from engine_builder.config.inspect_settings import InspectSettings
from engine_builder.config.schema import nearest
from engine_builder.config.value_range import MOST_VALUES, ValueRange


def fixed_batch(specs: Sequence[TensorSpec], axes: Mapping[str, int | None] | None = None) -> int | None:
    """Return the number of samples that the inputs fix for every call, None where they leave it open.

    Args:
        specs: The inputs that take samples.
        axes: As ``CalibrationSet.axes``. None: the first of every input.

    Raises:
        InvalidModelError: Inputs fix different numbers.
    """
    sizes: dict[int, str] = {}
    for spec in specs:
        axis = (axes or {}).get(spec.name, 0)
        dim = 1 if axis is None else _dim(spec, axis)
        if isinstance(dim, int):
            sizes.setdefault(dim, spec.name)
    if len(sizes) > 1:
        found = ", ".join(f"'{name}' {size}" for size, name in sizes.items())
        raise InvalidModelError(
            f"model: the inputs fix different numbers of samples a call: {found}; one number expected",
            fix="Export the model with the same batch in every input, and with the samples on the first axis where it can be.",
        )
    return next(iter(sizes), None)


def whole_batches(samples: CalibrationSet, batch: int) -> CalibrationSet:
    """Return the samples cut to whole batches; fewer than one batch are repeated to fill it."""
    count = max(samples.samples // batch, 1) * batch
    return samples if count == samples.samples else samples.take(np.arange(count) % samples.samples)


def timing_shapes(
    specs: Sequence[TensorSpec], settings: InspectSettings, samples: CalibrationSet, batch: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input in a timed call, by the rules above.

    Args:
        specs: The model's inputs.
        settings: The job's settings; ``shapes`` and ``batch_size`` count.
        samples: What the inputs of the call are made from.
        batch: Samples in the call; None: ``timing_batch``.

    Raises:
        InvalidConfigError: ``shapes``, ``batch_size`` or ``profiles`` do not fit the model, the samples or each other.
    """
    _check_shapes(specs, settings.shapes, samples)
    batch = timing_batch(specs, settings, samples) if batch is None else batch
    _check_profiles(settings, batch)
    named = {dim: size for spec in specs for dim, axis in _symbols(spec) if (size := _opt(settings, spec.name, axis)) is not None}
    shapes = {}
    call = samples.feeds(0, 1)
    for spec in specs:
        sizes, counting = list(call[spec.name].shape), _counting(samples, spec.name)
        for axis in range(len(sizes)):
            dim = _dim(spec, axis)
            if axis == counting:
                sizes[axis] = batch
            elif not isinstance(dim, int):  # rule 1: the samples have the fixed sizes already
                sizes[axis] = _opt(settings, spec.name, axis) or named.get(dim or "", sizes[axis])
        shapes[spec.name] = tuple(sizes)
    return shapes


def timing_batch(specs: Sequence[TensorSpec], settings: InspectSettings, samples: CalibrationSet) -> int:
    """Return the samples in a timed call, as far as the inputs and the user tell.

    Raises:
        InvalidModelError: As for ``fixed_batch``.
        InvalidConfigError: ``batch_size`` or ``shapes`` do not fit the model or each other.
    """
    fixed = fixed_batch([spec for spec in specs if spec.name not in samples.settings], samples.axes)
    if fixed is not None:
        if settings.batch_size not in (1, fixed):  # 1 is the default, so it says nothing
            raise InvalidConfigError(
                f"batch_size: found {settings.batch_size}, expected {fixed}: the model fixes the samples of a call to {fixed}",
                fix=f"Leave batch_size out, or export the model with a dynamic batch axis to serve batches of {settings.batch_size}.",
            )
        return fixed
    counting = {name: _counting(samples, name) for name in settings.shapes}
    wanted = {name: sizes.opt[axis] for name, sizes in settings.shapes.items() if (axis := counting[name]) is not None}
    if len(set(wanted.values())) > 1:
        found = ", ".join(f"{name} {size}" for name, size in wanted.items())
        raise InvalidConfigError(
            f"shapes: found different numbers of samples in opt: {found}; one number expected",
            fix="Give the axis that counts samples the same opt size in every input.",
        )
    batch = next(iter(wanted.values()), settings.batch_size)
    if settings.batch_size not in (1, batch):
        raise InvalidConfigError(
            f"batch_size: found {settings.batch_size}, expected {batch}, the number of samples in shapes",
            fix="Leave batch_size out, or give the same number in both places.",
        )
    return batch


def engine_sizes(
    specs: Sequence[TensorSpec],
    settings: InspectSettings,
    timed: Mapping[str, tuple[int, ...]],
    samples: CalibrationSet,
    *,
    batch: int,
    is_fixed: bool = False,
) -> tuple[dict[str, ShapeRange], tuple[dict[str, ShapeRange], ...]]:
    """Return what an engine accepts of each input with an open axis where it is timed, and in each profile that the user asked for.

    Args:
        specs: The model's inputs.
        settings: The job's settings.
        timed: ``timing_shapes``.
        samples: What accuracy is measured on.
        batch: Samples in a timed call.
        is_fixed: Whether every call has as many samples as the timed one, though the inputs leave that open.

    Raises:
        InvalidConfigError: Profiles are asked for, and every call of the model has the same number of samples, or ``shapes`` gives that
            number a range too.
    """
    one = _timed_ranges(specs, settings, timed, samples, is_fixed=is_fixed)
    if not settings.profiles:
        return one, ()
    profiles = _several(specs, settings, one, samples, is_fixed=is_fixed)
    distance = {index: abs(asked.opt - batch) for index, asked in enumerate(settings.profiles) if asked.min <= batch <= asked.max}
    used = profiles[min(distance, key=distance.__getitem__)]  # as the runner chooses
    return {name: ShapeRange(sizes.min, timed[name], sizes.max) for name, sizes in used.items()}, profiles


def _timed_ranges(
    specs: Sequence[TensorSpec],
    settings: InspectSettings,
    timed: Mapping[str, tuple[int, ...]],
    samples: CalibrationSet,
    *,
    is_fixed: bool,
) -> dict[str, ShapeRange]:
    """Return, for each input with an open axis, the sizes that an engine with one range accepts: smallest, timed and largest.

    They are those of ``shapes``. Without, there may be any number of samples up to the timed one, and every other axis has the timed one;
    the size that an axis has in the samples is taken in in any case, since accuracy is measured with it.
    """
    spans, call = {}, samples.feeds(0, 1)
    for spec in specs:
        opt, given, sizes = timed[spec.name], settings.shapes.get(spec.name), call[spec.name].shape
        counting = _counting(samples, spec.name)
        is_open = [not isinstance(dim, int) for dim in spec.shape]
        if any(is_open):
            low = list(given.min if given is not None else opt)
            high = list(given.max if given is not None else opt)
            for axis in range(len(opt)):
                if axis != counting:
                    low[axis], high[axis] = min(low[axis], sizes[axis], opt[axis]), max(high[axis], sizes[axis], opt[axis])
                elif is_open[axis] and given is None and not is_fixed:
                    low[axis] = 1
            spans[spec.name] = ShapeRange(tuple(low), opt, tuple(high))
    return spans


def _several(
    specs: Sequence[TensorSpec],
    settings: InspectSettings,
    one: Mapping[str, ShapeRange],
    samples: CalibrationSet,
    *,
    is_fixed: bool,
) -> tuple[dict[str, ShapeRange], ...]:
    """Return the sizes of each profile: axes that count samples have the profile's, all others those of the one range."""
    counting = {spec.name: _counting(samples, spec.name) for spec in specs if spec.name in one}
    axes = {spec.name: axis for spec in specs if (axis := counting.get(spec.name)) is not None and not isinstance(_dim(spec, axis), int)}
    if not axes or is_fixed:
        raise InvalidConfigError(
            f"builder.profiles: found {len(settings.profiles)}, expected none: the model fixes the samples of a call",
            fix="Leave builder.profiles out, or export the model with a dynamic batch axis.",
        )
    for name in axes.keys() & settings.shapes.keys():
        given, axis = settings.shapes[name], axes[name]
        if not given.min[axis] == given.opt[axis] == given.max[axis]:
            raise InvalidConfigError(
                f"shapes.{name}: found {given.min[axis]} to {given.max[axis]} samples beside builder.profiles, expected one number",
                fix=f"Give {given.opt[axis]} in min, opt and max on axis {axis}: the profiles have its range.",
            )
    return tuple(
        {name: sizes if name not in axes else _at(sizes, axes[name], profile) for name, sizes in one.items()}
        for profile in settings.profiles
    )


def _at(sizes: ShapeRange, axis: int, profile: BatchProfile) -> ShapeRange:
    """Return the sizes with the profile's samples on one axis."""
    ends = ((sizes.min, profile.min), (sizes.opt, profile.opt), (sizes.max, profile.max))
    return ShapeRange(*((*found[:axis], size, *found[axis + 1 :]) for found, size in ends))


def profile_values(
    specs: Sequence[TensorSpec], timed: Mapping[str, tuple[int, ...]], samples: CalibrationSet, *others: CalibrationSet
) -> dict[str, ValueRange]:
    """Return the values, over all samples, of each input of few integers whose size is fixed: those may set sizes of tensors.

    Args:
        specs: The model's inputs, settings left out.
        timed: ``timing_shapes``.
        samples: What accuracy is measured on, and what the timed call is made from.
        others: What else engines are run on.
    """
    found, call = {}, timed_call(samples, timed)
    for spec in specs:
        size = math.prod(dim if isinstance(dim, int) else 0 for dim in spec.shape)
        if spec.dtype not in ("int32", "int64") or not spec.has_rank or len(spec.shape) > 1 or not 1 <= size <= MOST_VALUES:
            continue
        # Of an axis that counts samples, every place may hold any of them.
        sets = [(one, one.inputs[spec.name]) for one in (samples, *others)]
        every = [array.reshape(-1, size if _counting(one, spec.name) is None else 1) for one, array in sets]
        low = np.min([array.min(axis=0) for array in every], axis=0)
        high = np.max([array.max(axis=0) for array in every], axis=0)
        opt = call[spec.name].reshape(-1)
        found[spec.name] = ValueRange(*(tuple(map(int, np.broadcast_to(part, (size,)))) for part in (low, opt, high)))
    return found


def timed_call(samples: CalibrationSet, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the inputs of one timed call: real samples, cut or repeated from the start on every axis to the shapes."""
    counting = {name: _counting(samples, name) for name in samples.inputs}
    count = max((shapes[name][axis] for name, axis in counting.items() if axis is not None), default=1)
    feeds = samples.take(np.arange(count) % samples.samples).feeds()
    return {name: _resized(array, shapes[name]) for name, array in feeds.items()}


def _resized(array: Array, shape: Sequence[int]) -> Array:
    for axis, size in enumerate(shape):
        if array.shape[axis] != size:
            array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return np.ascontiguousarray(array)


def _check_shapes(specs: Sequence[TensorSpec], shapes: Mapping[str, ShapeRange], samples: CalibrationSet) -> None:
    known, call = {spec.name: spec for spec in specs}, samples.feeds(0, 1)
    named: dict[str, tuple[str, int]] = {}
    for name, sizes in shapes.items():
        if name not in known:
            near = nearest(name, known)
            raise InvalidConfigError(
                f"shapes: found input '{name}', expected one of {', '.join(repr(known_name) for known_name in known)}",
                fix=f"Did you mean '{near}'?" if near else "Name an input of the model.",
            )
        array = call[name]
        if len(sizes.opt) != array.ndim:
            raise InvalidConfigError(
                f"shapes.{name}: found {len(sizes.opt)} axes, expected {array.ndim}", fix="Name every axis, in the order of the model's."
            )
        for axis, (low, opt, high) in enumerate(zip(sizes.min, sizes.opt, sizes.max, strict=True)):
            dim = _dim(known[name], axis)
            if isinstance(dim, int) and not low == opt == high == dim:
                raise InvalidConfigError(
                    f"shapes.{name}: found {low} to {high} on axis {axis}, expected {dim}: the model fixes it",
                    fix=f"Give {dim} in min, opt and max, or export the model with that axis dynamic.",
                )
            if axis != _counting(samples, name) and not low <= array.shape[axis] <= high:
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


def _check_profiles(settings: InspectSettings, batch: int) -> None:
    if settings.profiles and not any(profile.min <= batch <= profile.max for profile in settings.profiles):
        found = ", ".join(f"{profile.min} to {profile.max}" for profile in settings.profiles)
        raise InvalidConfigError(
            f"builder.profiles: found {found} samples, expected one profile that takes {batch}, which engines are scored and timed with",
            fix="Add a profile for it, or set batch_size to a number that one takes.",
        )


def _counting(samples: CalibrationSet, name: str) -> int | None:
    """Return the axis of an input that counts samples."""
    return None if name in samples.settings else samples.axes.get(name, 0)


def _dim(spec: TensorSpec, axis: int) -> int | str | None:
    return spec.shape[axis] if spec.has_rank else None


def _symbols(spec: TensorSpec) -> Iterator[tuple[str, int]]:
    return ((dim, axis) for axis, dim in enumerate(spec.shape) if isinstance(dim, str))


def _opt(settings: InspectSettings, name: str, axis: int) -> int | None:
    return settings.shapes[name].opt[axis] if name in settings.shapes else None
