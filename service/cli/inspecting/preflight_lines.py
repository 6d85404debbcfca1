"""The lines of the command ``inspect``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from calibration.onnx_model.model_io import TensorSpec
from engine_builder.engines.preflight import Preflight, TargetPreflight, job_seconds, preflight

_SAMPLES = "samples"


def inspect_model(path: Path, samples: int, out: Callable[[str], None]) -> None:
    """Write what can be told of a model before a job.

    Args:
        path: The .onnx file.
        samples: That engines would be scored on, for the estimate.
        out: Takes the lines.

    Raises:
        InputError: The model cannot be optimized.
    """
    with tempfile.TemporaryDirectory() as scratch:
        found = preflight(path, Path(scratch))
    for line in preflight_lines(found, path.stat().st_size, samples):
        out(line)


def preflight_lines(found: Preflight, size_bytes: int, samples: int) -> Iterator[str]:
    """Give the lines; for the arguments see ``inspect_model``."""
    yield f"model     {size_bytes / 1e6:.2f} MB, opset {found.opset}, weights in {found.float_type}"
    for what, specs in (("inputs", found.inputs), ("outputs", found.outputs)):
        yield from _under(what, [f"{spec.name}: {spec.dtype} {_shape(spec)}" for spec in specs])
    total = sum(found.layers.values())
    yield f"layers    {total} that can take a lower precision: " + ", ".join(f"{count} {kind}" for kind, count in found.layers.items())
    yield from _under("targets", [_target_line(target, total) for target in found.targets])
    yield from _under("data", [f"array {spec.name!r}: {spec.dtype}, shape {_data_shape(spec)}" for spec in found.inputs])
    yield "          in one .npz, the first axis counts samples; labels, where there are any, in an array `labels`"
    yield f"time      {_time_line(found, samples)}"
    yield from _under("notes", list(found.notes))


def _under(head: str, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{'' if number else head:<10}{line}"


def _shape(spec: TensorSpec) -> str:
    if not spec.has_rank:
        return "of any shape"
    return "(" + ", ".join("?" if size is None else str(size) for size in spec.shape) + ")"


def _data_shape(spec: TensorSpec) -> str:
    if not spec.has_rank:
        return "(samples, ...)"
    rest = ["any" if not isinstance(size, int) else str(size) for size in spec.shape[1:]]
    return "(" + ", ".join([_SAMPLES, *rest]) + ")"


def _target_line(target: TargetPreflight, total: int) -> str:
    if target.why_not is not None:
        return f"{target.target}: not here: {target.why_not}"
    taken = [f"{precision} for {count}" for precision, count in target.layers.items() if count]
    return f"{target.target}: " + (f"{', '.join(taken)} of {total} layers" if taken else "no layer can take a lower precision")


def _time_line(found: Preflight, samples: int) -> str:
    seconds = job_seconds(found, samples)
    if seconds is None or found.call_seconds is None:
        return "not known: the model does not run on made-up input, or takes too long"
    low, high = seconds
    return (
        f"one call {found.call_seconds * 1e3:.2f} ms here; a job for onnxruntime-cpu with {samples} samples about {_duration(low)} to "
        f"{_duration(high)} on a machine that does nothing else"
    )


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _LONG else f"{seconds / 3600:.1f} h"


_MINUTE = 60.0
_LONG = 2 * 3600.0
