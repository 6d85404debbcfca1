"""Turns what a caller gives for a model and for samples into files: paths stay as they are, values are written into a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from calibration.errors import InvalidCalibrationSetError, InvalidConfigError, InvalidMetricError, InvalidModelError
from service.intake.given_files import check_file, check_samples

if TYPE_CHECKING:
    import onnx

    from calibration.onnx_model.model_io import TensorSpec

GivenModel: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"
GivenSamples: TypeAlias = "str | os.PathLike[str] | Mapping[str, object] | Iterable[object]"
_ZIP = b"PK"


def model_file(model: GivenModel, folder: Path, name: str = "model") -> Path:
    """Return a file of the model: its own, or one in the folder.

    Args:
        model: A path, the bytes of an .onnx file (or of a .zip of one), or a model of the package onnx.
        folder: For what is written.
        name: Of the file that is written, without a suffix.

    Raises:
        InvalidModelError: It is nothing of these.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model)
    if isinstance(model, bytes | bytearray | memoryview):
        path = folder / (f"{name}.zip" if bytes(model[:2]) == _ZIP else f"{name}.onnx")
        path.write_bytes(model)
        return path
    import onnx  # it takes a quarter of a second, and who gives a model of it has it already

    if not isinstance(model, onnx.ModelProto):
        raise InvalidModelError(f"{name}: {type(model).__name__} found, a path, bytes or an onnx.ModelProto expected", fix=_EXPORT)
    from calibration.onnx_model.model_io import save_model

    path = folder / f"{name}.onnx"
    save_model(model, path)
    return path


def samples_file(samples: GivenSamples, model: Path, folder: Path, part: str, *, batched: bool | None = None) -> Path:
    """Return a file, or a folder, of the samples: their own, or a file in the folder.

    Args:
        samples: A path, a dict of whole arrays, one whole array, or anything that gives samples or batches one after the other.
        model: The model's file, for the names and axes of its inputs.
        folder: For what is written.
        part: "calibration" or "validation", the name of the file that is written.
        batched: Whether what is given one after the other are batches; None: told by the model's inputs.

    Raises:
        InputError: They cannot be read, or do not fit the model.
    """
    what = f"{part} set"
    if isinstance(samples, str | os.PathLike):
        check_samples(Path(samples), what)
        return Path(samples)
    from service.python.arrays import is_array  # these load numpy and onnx, which a client that sends files does without
    from service.python.sample_file import write_arrays, write_samples

    path = folder / f"{part}.npz"
    if isinstance(samples, Mapping):
        write_arrays(samples, path, what)
        return path
    check_file(model, InvalidModelError, "model")
    inputs = _inputs(model)
    if is_array(samples):
        if len(inputs) != 1:
            raise InvalidCalibrationSetError(
                f"{what}: one array found, {len(inputs) or 'named arrays'} expected",
                fix="Give a dict of arrays by the names of the inputs.",
            )
        write_arrays({inputs[0].name: samples}, path, what)
        return path
    try:
        one_by_one = iter(samples)
    except TypeError as exc:
        raise InvalidCalibrationSetError(
            f"{what}: {type(samples).__name__} found, a path, arrays or samples to iterate over expected",
            fix="Give a path, a dict of arrays, or an iterable of samples.",
        ) from exc
    write_samples(one_by_one, inputs, path, what, batched=batched)
    return path


def metric_file(metric_model: GivenModel, folder: Path) -> Path:
    """Return a file of the user's own metric.

    Raises:
        InvalidMetricError: It is no file, or nothing that can be one.
    """
    try:
        path = model_file(metric_model, folder, "metric")
    except InvalidModelError as error:
        raise InvalidMetricError(error.detail, fix=error.fix) from error
    check_file(path, InvalidMetricError, "metric model")
    return path


def output_folder(output: str | os.PathLike[str]) -> Path:
    """Return the folder as a path.

    Raises:
        InvalidConfigError: It is no path.
    """
    if not isinstance(output, str | os.PathLike):
        raise InvalidConfigError(f"output: {type(output).__name__} found, a folder expected", fix="Give a path.")
    return Path(output)


def _inputs(model: Path) -> Sequence[TensorSpec]:
    """Return the inputs of a model without its external data; none of an archive, or of what is no model, which is said later."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf publishes no types

    from calibration.onnx_model.model_io import input_specs

    try:
        return input_specs(onnx.load(model, load_external_data=False))
    except DecodeError:
        return ()


_EXPORT = "Export the model: torch.onnx.export(model, example_input, 'model.onnx')."
