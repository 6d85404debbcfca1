"""Writes samples, one after the other, into the .npz file that a job takes: only one sample is in memory at a time.

The arrays grow as raw bytes, one file an array, since their lengths are known only at the end; then each is copied behind its header into
an uncompressed .zip. Equal samples give equal bytes.
"""

from __future__ import annotations

import difflib
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np

from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec
from service.python.arrays import Array, array_of, is_array

LABELS = "labels"
_BESIDE = (LABELS, "lengths")  # what samples may have beside the inputs, in underscores where an input is called so
_CHUNK_BYTES = 2**20


def write_samples(samples: Iterable[object], inputs: Sequence[TensorSpec], path: Path, what: str, *, batched: bool | None = None) -> None:
    """Write samples as an .npz.

    Args:
        samples: Each an array (of a model with one input), a tuple or list of one array for each input in the model's order and,
            where there is one, the label, or a mapping of names to arrays. All single samples, or all batches of samples. Read once.
        inputs: Of the model, in its order; empty where they are not known.
        path: The file to write.
        what: The samples' part, for messages: "calibration set".
        batched: Whether each is a batch, whose first axis counts samples; None: told by the number of axes of the model's inputs.

    Raises:
        InvalidCalibrationSetError: There is no sample, one does not fit the model or those before it, or it cannot be told what a batch is.
    """
    with TemporaryDirectory(dir=path.parent) as folder, ExitStack() as open_files:
        growing: dict[str, _Growing] = {}
        for index, sample in enumerate(samples):
            where = f"{what}, item {index}"
            arrays = {name: array_of(value, f"{where}, array '{name}'") for name, value in _named(sample, inputs, where).items()}
            if index == 0:
                batched = _is_batch(arrays, inputs, where) if batched is None else batched
                for number, name in enumerate(arrays):
                    growing[name] = _Growing(open_files.enter_context(Path(folder, str(number)).open("w+b")), name, is_batch=batched)
            if arrays.keys() != growing.keys():
                raise InvalidCalibrationSetError(
                    f"{where}: the arrays {_listed(arrays)} found, {_listed(growing)} expected as before", fix="Give every sample the same."
                )
            counts = {name: growing[name].add(array, where) for name, array in arrays.items()}
            if len(set(counts.values())) > 1:
                found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
                raise InvalidCalibrationSetError(
                    f"{where}: batches of different sizes found: {found}", fix="Give every array of a batch the same first axis."
                )
        if not growing:
            raise InvalidCalibrationSetError(f"{what}: no sample found, at least one expected", fix="Check what it iterates over.")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, one in growing.items():
                with _member(archive, name) as member:
                    one.copy_to(member)


def write_arrays(arrays: Mapping[str, object], path: Path, what: str) -> None:
    """Write whole arrays, whose first axis counts samples, as an .npz.

    Args:
        arrays: By name: the model's inputs, and ``labels``.
        path: The file to write.
        what: Their part, for messages: "calibration set".

    Raises:
        InvalidCalibrationSetError: One holds something else than numbers.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in arrays.items():
            array = array_of(value, f"{what}, array '{name}'")
            with _member(archive, name) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@dataclass(slots=True)
class _Growing:
    """An array that gets longer."""

    file: BinaryIO
    name: str
    is_batch: bool
    samples: int = 0
    shape: tuple[int, ...] | None = None  # of one sample; None: there is none yet
    dtype: np.dtype[np.generic] | None = None

    def add(self, array: Array, where: str) -> int:
        """Write a sample or a batch, and return how many samples that was."""
        if self.is_batch and array.ndim == 0:
            raise InvalidCalibrationSetError(
                f"{where}, array '{self.name}': a single number found, a batch expected", fix="Give one entry for each sample of the batch."
            )
        shape = array.shape[1:] if self.is_batch else array.shape
        if self.shape is None or self.dtype is None:
            self.shape, self.dtype = shape, array.dtype
        if (shape, array.dtype) != (self.shape, self.dtype):
            raise InvalidCalibrationSetError(
                f"{where}, array '{self.name}': {array.dtype} of shape {shape} a sample found, {self.dtype} of shape {self.shape} expected "
                "as before",
                fix="Give all samples one shape and type: resize, cut or pad them.",
            )
        self.file.write(array.tobytes())
        count = len(array) if self.is_batch else 1
        self.samples += count
        return count

    def copy_to(self, member: BinaryIO) -> None:
        """Write all of it as an .npy file."""
        assert self.shape is not None  # of every array that is here one sample came
        assert self.dtype is not None
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.samples, *self.shape)}
        np.lib.format.write_array_header_1_0(member, header)
        self.file.seek(0)
        shutil.copyfileobj(self.file, member, _CHUNK_BYTES)


def _named(sample: object, inputs: Sequence[TensorSpec], where: str) -> Mapping[str, object]:
    """Return what a sample holds by name."""
    if isinstance(sample, Mapping):
        named = {str(name): value for name, value in sample.items()}
        _check_names(named, inputs, where)
        return named
    values = (sample,) if is_array(sample) else tuple(sample) if isinstance(sample, list | tuple) else None
    if values is None:
        raise InvalidCalibrationSetError(
            f"{where}: {type(sample).__name__} found, an array, a tuple of arrays or a dict of arrays expected",
            fix="Give arrays of numpy, or tensors, by the names of the model's inputs.",
        )
    names = [spec.name for spec in inputs]
    if not names:
        raise InvalidCalibrationSetError(
            f"{where}: arrays without names found, and the model's inputs cannot be read here", fix="Give dicts: {'input': array}."
        )
    if len(values) not in (len(names), len(names) + 1):
        raise InvalidCalibrationSetError(
            f"{where}: {len(values)} arrays found, {len(names)} expected ({_listed(names)}), and a label where there is one",
            fix="Give a dict of arrays by the names of the model's inputs.",
        )
    return dict(zip((*names, LABELS), values, strict=False))


def _check_names(names: Iterable[str], inputs: Sequence[TensorSpec], where: str) -> None:
    """Refuse a name that the model does not have, before what it holds is looked at."""
    known = [spec.name for spec in inputs]
    odd = [name for name in names if known and name not in known and name.strip("_") not in _BESIDE]
    if odd:
        near = difflib.get_close_matches(odd[0], [*known, LABELS], n=1)
        raise InvalidCalibrationSetError(
            f"{where}, array '{odd[0]}': the model has no such input; its inputs are {_listed(known)}",
            fix=f"Call it '{near[0]}'." if near else f"Leave it out, or call it as the input that it is for; labels are called '{LABELS}'.",
        )


def _is_batch(arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], where: str) -> bool:
    """Return whether arrays have the axes of the model's inputs, or one less each."""
    known = {spec.name: len(spec.shape) for spec in inputs if spec.shape}
    missing = {name: known[name] - array.ndim for name, array in arrays.items() if name in known}
    if missing and set(missing.values()) <= {0}:
        return True
    if missing and set(missing.values()) <= {1}:
        return False
    found = ", ".join(f"'{name}' {array.shape}" for name, array in arrays.items())
    wanted = ", ".join(f"'{name}' {count} axes" for name, count in known.items()) or "not known here"
    raise InvalidCalibrationSetError(
        f"{where}: it cannot be told whether it is one sample or a batch: {found} found; the model's inputs are: {wanted}",
        fix="Give arrays of the model's shape, or say batched=True (the first axis counts samples) or batched=False.",
    )


def _member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    """Return a new file in the archive, of a date that is always the same."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)  # type: ignore[return-value]  # an IO[bytes], all of BinaryIO but __enter__


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
