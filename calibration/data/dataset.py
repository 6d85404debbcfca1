"""Calibration and validation sets: one array per model input, checked against the model before anything runs."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.labels import any_labels_from, are_numbers, class_labels_from
from calibration.data.formats.token_rows import MASKS
from calibration.data.formats.wanted import Wanted
from calibration.data.input_axes import possible_axes, without_axis_of_one
from calibration.data.readers import read_arrays
from calibration.data.sample_axes import in_model_form
from calibration.data.settings import repeated, settings_from
from calibration.errors import InvalidCalibrationSetError
from calibration.nonfinite import Special, finite_of, specials_in
from calibration.onnx_model.model_io import TensorSpec
from calibration.process.mapped_arrays import MappedArrays

MIN_SAMPLES = 8
MAPPED_BYTES = 16 << 20  # of a saved set from this size on, whose samples stay in the file until they are taken
_NO_AXIS = -1  # in a file, of an input that does not count samples
Array: TypeAlias = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """Samples for each input of a model; every array has ``samples`` as its first axis, whatever axis counts them in the model."""

    inputs: Mapping[str, Array]  # name -> (samples, *shape of one sample)
    labels: Array | None  # (samples,) class indices, int64; or (samples, tokens); or whatever the user's own metric compares with
    axes: Mapping[str, int | None] = field(default_factory=dict)  # as ``SampleAxes.inputs``, of ``inputs``
    settings: Mapping[str, Array] = field(default_factory=dict)  # inputs that have one value for the whole job, in the model's form
    starts: Mapping[str, Array] = field(
        default_factory=dict
    )  # where samples are steps: the states that sequences begin with, (sequences, ...)
    source: MappedArrays | None = None  # the file that inputs stay in, to be let go of once they are copied from there

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def take(self, indices: NDArray[np.int64]) -> CalibrationSet:
        """Return the samples at ``indices`` (any length, int64), in that order, as single ones."""
        inputs = {
            name: np.broadcast_to(array[:1], (len(indices), *array.shape[1:])) if is_repeated(array) else array[indices]
            for name, array in self.inputs.items()
        }
        if self.source is not None:
            self.source.let_go()
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, inputs=MappingProxyType(inputs), labels=labels, starts={}, source=None)

    def feeds(self, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Return the samples [start, stop), all by default, as one call of the model takes them: each input in the model's form.

        An input without an axis of samples takes one sample a call: of more, the first.
        """
        fed = {name: in_model_form(array[start:stop], self.axes.get(name, 0)) for name, array in self.inputs.items()}
        if self.source is None:
            fed = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in fed.items()}
        else:  # copies: what a file holds stands anywhere in memory
            fed = {name: np.array(array, order="C") for name, array in fed.items()}
            self.source.let_go()
        return fed | dict(self.settings)

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Yield the feeds of ``size`` samples at a time, in order; the last batch may be smaller."""
        for start in range(0, self.samples, size):
            yield self.feeds(start, start + size)

    @property
    def specials(self) -> tuple[str, ...]:
        """What inputs hold besides finite numbers, in words: it is the model that says whether that is right."""
        found = []
        for name, given in self.inputs.items():
            array = given[:1] if is_repeated(given) else given
            kinds = specials_in(array) - {Special.FAR}
            if kinds:
                where = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
                held = " and ".join(sorted(kinds))
                found.append(f"array '{name}' holds {held} in {len(where)} of {len(array)} samples, first in sample {where[0]}")
        return tuple(found)

    def save(self, path: Path) -> None:
        """Write the set for ``load_saved``: an .npz of ``input:<name>``, ``axis:<name>``, ``setting:<name>``, ``start:<name>``, ``labels``.

        Of one sample that is repeated throughout (``is_repeated``) an input has one, beside their number, ``repeats:<name>``.
        """
        repeated_ones = {name: len(array) for name, array in self.inputs.items() if is_repeated(array)}
        arrays = {f"input:{name}": array[:1] if name in repeated_ones else array for name, array in self.inputs.items()}
        arrays |= {f"repeats:{name}": np.asarray(count) for name, count in repeated_ones.items()}
        arrays |= {f"start:{name}": array for name, array in self.starts.items()}
        arrays |= {f"axis:{name}": np.asarray(_NO_AXIS if axis is None else axis) for name, axis in self.axes.items()}
        arrays |= {f"setting:{name}": array for name, array in self.settings.items()}
        if self.labels is not None:
            arrays["labels"] = self.labels
        # numpy.savez takes the names as keywords, so inputs called "file" or "allow_pickle" could not be saved with it
        with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
                if self.source is not None:
                    self.source.let_go()


@dataclass(frozen=True, slots=True, eq=False)
class SampleShare:
    """Some samples of a set. They are copied call by call, so that those of a set that stays in its file take no room at once."""

    whole: CalibrationSet
    indices: NDArray[np.int64]  # of the samples, any length

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def take(self, indices: NDArray[np.int64]) -> CalibrationSet:
        """Return the samples at ``indices`` of these, in that order, as single ones."""
        return self.whole.take(self.indices[indices])

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Yield the feeds of ``size`` samples at a time, in their order; the last batch may be smaller."""
        for start in range(0, self.samples, size):
            yield self.take(np.arange(start, min(start + size, self.samples))).feeds()


def load_saved(path: Path) -> CalibrationSet:
    """Return the set that ``CalibrationSet.save`` wrote; the file is not written to any more."""
    source = MappedArrays(path) if path.stat().st_size >= MAPPED_BYTES else None
    if source is None:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, Array] = {name: archive[name] for name in archive.files}
    else:
        arrays = {name: array if name.startswith("input:") else np.array(array) for name, array in source.arrays.items()}
    inputs, axes, settings, starts, repeats = (
        {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
        for kind in ("input:", "axis:", "setting:", "start:", "repeats:")
    )
    known = {name: None if axis == _NO_AXIS else int(axis) for name, axis in axes.items()}
    inputs |= {name: np.broadcast_to(inputs[name], (int(count), *inputs[name].shape[1:])) for name, count in repeats.items()}
    return CalibrationSet(MappingProxyType(inputs), arrays.get("labels"), known, settings, starts, source)


def is_repeated(array: Array) -> bool:
    """Return whether all samples, (samples, ...), are one in memory, as ``numpy.broadcast_to`` makes them: large states take no room so."""
    return len(array) > 1 and array.strides[0] == 0 and array.size > 0


def read_samples(path: Path, specs: Sequence[TensorSpec], *, any_labels: bool = False) -> CalibrationSet:
    """Return the samples in a file of a known format (``readers.py``), in the types that the model wants.

    Args:
        path: A file with one array per input, first axis = samples whatever axis counts them in the model (``input_axes``), without axes
            for a setting of the whole job (``settings``), and optionally ``labels`` (``__labels__`` if the model has an input called
            ``labels``).
        specs: The model's inputs.
        any_labels: As for ``samples_from``.

    Raises:
        InvalidCalibrationSetError: The file cannot be read or does not fit the model.
    """
    return samples_from(read_arrays(path, Wanted(tuple(specs))).arrays, specs, any_labels=any_labels)


def samples_from(
    given: Mapping[str, Array], specs: Sequence[TensorSpec], *, any_labels: bool = False, states: Collection[str] = ()
) -> CalibrationSet:
    """Return samples from the arrays of a file, in the types that the model wants.

    Args:
        given: The arrays by name, as for ``read_samples``.
        specs: The model's inputs.
        any_labels: Labels may be numbers of any type and shape, one entry per sample, for a metric of the user's own; else they are class
            indices, (samples,), or (samples, tokens) with IGNORED for tokens that do not count. Numbers with fractions are kept.
        states: Inputs that hold what another step gave: never settings, even where all samples start alike.

    Raises:
        InvalidCalibrationSetError: The arrays do not fit the model.
    """
    arrays = dict(given)
    label_name = extra_name("labels", specs)
    labels = arrays.pop(label_name, None)
    _check_names(arrays, specs, label_name)
    settings = settings_from(arrays, [spec for spec in specs if spec.name not in states])
    varying = [spec for spec in specs if spec.name not in settings]
    arrays = repeated(arrays, varying)
    inputs = {spec.name: _checked(arrays[spec.name], spec) for spec in varying}
    guesses = possible_axes(varying, {name: array.shape for name, array in inputs.items()})
    if not guesses:
        for spec in varying:
            _check_shape(arrays[spec.name], spec)
        raise _fitting_no_axis(inputs, varying)
    inputs = {spec.name: in_type_of(without_axis_of_one(inputs[spec.name], spec, guesses[0][spec.name]), spec) for spec in varying}
    _check_sizes(inputs, varying, guesses[0])
    if labels is not None:
        samples = len(next(iter(inputs.values())))
        is_any = any_labels or are_numbers(labels)  # whether the metric takes such is seen when it is known
        labels = (any_labels_from if is_any else class_labels_from)(labels, samples, label_name)
    given = {spec.name: in_type_of(settings[spec.name], spec) for spec in specs if spec.name in settings}
    return CalibrationSet(MappingProxyType(inputs), labels, {name: axis for name, axis in guesses[0].items() if axis != 0}, given)


def extra_name(name: str, specs: Sequence[TensorSpec]) -> str:
    """Return what an array beside the inputs, such as ``labels``, is called: in underscores where the model has an input of that name."""
    return f"__{name}__" if any(spec.name == name for spec in specs) else name


def split_held_out(samples: int, seed: int, fraction: float = 0.4) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted, disjoint indices (rest, held out) of a seeded random split.

    Args:
        samples: Samples in all.
        seed: Of the shuffle.
        fraction: Share that is held out, 0..1; both parts get at least one sample.

    Raises:
        InvalidCalibrationSetError: Fewer than ``MIN_SAMPLES`` samples.
    """
    if samples < MIN_SAMPLES:
        raise InvalidCalibrationSetError(
            f"calibration set: {samples} sample{'' if samples == 1 else 's'} found, at least {MIN_SAMPLES} expected",
            fix="Give more samples (a few hundred are usual), drawn like the data that the model will see.",
        )
    order = np.random.default_rng(seed).permutation(samples).astype(np.int64)
    held_out = min(max(round(samples * fraction), 1), samples - 1)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _check_names(arrays: Mapping[str, Array], specs: Sequence[TensorSpec], label_name: str) -> None:
    expected = [spec.name for spec in specs]
    extra = [name for name in arrays if name not in expected]
    missing = [name for name in expected if name not in arrays]
    wanted = ", ".join(f"'{name}'" for name in expected)
    if missing:
        near = difflib.get_close_matches(missing[0], extra, n=1, cutoff=0.0)
        found = ", ".join(f"'{name}'" for name in arrays) or "none"
        fix = f"Rename array '{near[0]}' to '{missing[0]}'." if near else f"Add an array called '{missing[0]}'."
        if missing[0] in MASKS:
            fix += ' Or state the token that rows are filled up with, and it is made: "tokens": {"pad": 0}.'
        raise InvalidCalibrationSetError(f"array '{missing[0]}': missing; arrays found: {found}; model inputs: {wanted}", fix=fix)
    if extra:
        near = difflib.get_close_matches(extra[0], [*expected, label_name], n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise InvalidCalibrationSetError(
            f"array '{extra[0]}': no such model input; model inputs: {wanted}",
            fix=f"{hint}Remove the array; only '{label_name}' may be added to the inputs.",
        )


def _checked(array: Array, spec: TensorSpec) -> Array:
    """Return ``array`` after a check that it holds samples."""
    if array.ndim == 0 or len(array) == 0:
        raise InvalidCalibrationSetError(
            f"array '{spec.name}': is empty (shape {array.shape})", fix=f"Give at least {MIN_SAMPLES} samples."
        )
    return array


def _check_shape(array: Array, spec: TensorSpec) -> None:
    """Refuse an array that does not fit the model's input with samples on its first axis."""
    expected = "(" + ", ".join(["samples", *("any" if dim is None else str(dim) for dim in spec.shape[1:])]) + ")"
    if spec.has_rank and array.ndim != len(spec.shape):
        raise InvalidCalibrationSetError(
            f"array '{spec.name}': {array.ndim} {'axis' if array.ndim == 1 else 'axes'} found (shape {array.shape}), "
            f"{len(spec.shape) or 1} expected: {expected}",
            fix="Stack the samples on the first axis; every sample has the shape of the model input without its batch axis.",
        )
    for axis, (found, dim) in enumerate(zip(array.shape, spec.shape, strict=False)):
        if axis > 0 and isinstance(dim, int) and found != dim:
            raise InvalidCalibrationSetError(
                f"array '{spec.name}': size {found} found on axis {axis} (shape {array.shape}), {dim} expected: {expected}",
                fix="Preprocess the samples as for the model (size, and order of the axes: N, C, H, W for most image models).",
            )


def _fitting_no_axis(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> InvalidCalibrationSetError:
    spec = next((one for one in specs if not possible_axes([one], {one.name: inputs[one.name].shape})), specs[0])
    declared = ", ".join("any" if dim is None else str(dim) for dim in spec.shape)
    return InvalidCalibrationSetError(
        f"array '{spec.name}': shape {inputs[spec.name].shape} found, expected samples on the first axis and behind it the model's input, "
        f"({declared}), without the axis that counts samples",
        fix="Move the samples to the front: array = numpy.moveaxis(array, axis, 0), and leave the other axes in the model's order.",
    )


def in_type_of(array: Array, spec: TensorSpec) -> Array:
    """Return an array in the type of a model's input.

    Raises:
        InvalidCalibrationSetError: Its values are of another kind, or the type cannot hold them.
    """
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return array
    cast_fix = f"Convert the array the way the model's input is made, e.g. array.astype('{wanted.name}')."
    if array.dtype.newbyteorder("=") != wanted and (
        array.dtype.kind not in "fiu" or (array.dtype.kind == "f") != (wanted.kind == "f") or wanted.kind == "b"
    ):
        raise InvalidCalibrationSetError(f"array '{spec.name}': {array.dtype.name} found, {wanted.name} expected", fix=cast_fix)
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        fits = not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
    else:
        fits = wanted.kind != "f" or float(np.abs(finite_of(array)).max(initial=0.0)) <= float(np.finfo(wanted).max)
    if not fits:
        raise InvalidCalibrationSetError(
            f"array '{spec.name}': {array.dtype.name} values from {array.min()} to {array.max()} found, which {wanted.name} cannot hold",
            fix="Look for what made values of this size (a scale that was left out, a mark for what is missing), and give the real ones.",
        )
    return array.astype(wanted)


def _check_sizes(inputs: Mapping[str, Array], specs: Sequence[TensorSpec], axes: Mapping[str, int | None]) -> None:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InvalidCalibrationSetError(
            f"samples: different numbers of them found: {found}; one number expected",
            fix="Give every input the same samples, in the same order; what has one value for the whole job is an array without axes.",
        )
    sizes: dict[str, tuple[str, int, int]] = {}
    for spec in specs:
        sample = in_model_form(inputs[spec.name][:1], axes[spec.name])
        for axis, dim in enumerate(spec.shape):
            if axis != axes[spec.name] and isinstance(dim, str):
                name, other_axis, size = sizes.setdefault(dim, (spec.name, axis, sample.shape[axis]))
                if size != sample.shape[axis]:
                    raise InvalidCalibrationSetError(
                        f"array '{spec.name}': size {sample.shape[axis]} found on axis {axis}, {size} expected: "
                        f"the model calls it '{dim}', as axis {other_axis} of '{name}'",
                        fix="Give axes of the same name the same size (pad both arrays alike).",
                    )
