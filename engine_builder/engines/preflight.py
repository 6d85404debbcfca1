"""What can be told of a model before a job: its data, what each target could do with its layers, and about how long it takes.

No samples are needed, so what depends on them is not known yet: whether a layer's values stay finite, which precisions pay, which engines
are inside a budget.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.errors import CalibrationError, OptimizerError
from calibration.execution.onnxruntime_session import Piece
from calibration.graph.layers import find_layers
from calibration.graph.opset import opset_version
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import TensorSpec, input_specs, output_specs, read_model, save_model
from engine_builder.backends.registry import BACKENDS, Targets, backend_for
from engine_builder.engines.builder_check import prepare_for


@dataclass(frozen=True, slots=True)
class TargetPreflight:
    """What a target could do: for how many layers it has each of its low precisions, or why it can do nothing."""

    target: str
    layers: Mapping[Precision, int]
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """What can be told of a model before a job.

    Attributes:
        opset: Of the standard operators.
        float_type: Of the weights.
        layers: How many there are of each operator that can take a lower precision.
        call_seconds: What one call of the float model takes here on input of one sample, None where it does not run on made-up input, or
            takes longer than that is worth.
        notes: What was changed to make the model ready.
    """

    opset: int
    float_type: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: Mapping[str, int]
    targets: tuple[TargetPreflight, ...]
    call_seconds: float | None
    notes: tuple[str, ...]


def preflight(path: Path, scratch: Path, *, targets: Targets = BACKENDS) -> Preflight:
    """Return what can be told of the model in a file.

    Args:
        path: The file, its external data beside it.
        scratch: A folder for temporary files.
        targets: What engines can be built for.

    Raises:
        InvalidModelError: It cannot be read, or has no layers.
    """
    model = read_model(path)
    prepared = prepare(model)
    layers = find_layers(prepared.model)
    save_model(prepared.model, scratch / "prepared.onnx")
    specs = input_specs(model)
    return Preflight(
        opset=opset_version(model),
        float_type=prepared.float_type,
        inputs=tuple(specs),
        outputs=tuple(output_specs(model)),
        layers=dict(Counter(layer.op_type for layer in layers).most_common()),
        targets=tuple(_target(target, path, scratch, targets) for target in targets),
        call_seconds=_call_seconds(scratch / "prepared.onnx", specs),
        notes=tuple(prepared.notes),
    )


def job_seconds(found: Preflight, samples: int) -> tuple[float, float] | None:
    """Return about how long a job takes on a quiet machine, at least and at most; None where a call's time is not known.

    At least three engines are built, timed for a second or two and scored on every sample. At most ten are, timed for six seconds each, and
    every layer is probed on some of the samples, which runs the model seven and a half times a layer and sample. Starting the processes and
    drawing the report takes the rest. It leaves out builds, which take minutes on targets of NVIDIA.

    Args:
        found: What is known of the model.
        samples: That engines are scored on.
    """
    if found.call_seconds is None:
        return None
    scored = samples * found.call_seconds
    probed = min(samples, _PROBED_SAMPLES) * sum(found.layers.values()) * _PASSES_A_LAYER * found.call_seconds
    return 10 + 3 * (2 + scored), 60 + 10 * (6 + scored) + probed


def _target(target: str, path: Path, scratch: Path, targets: Targets) -> TargetPreflight:
    try:
        backend = backend_for(target, table=targets)
        prepared = prepare_for(backend, read_model(path), scratch)
    except OptimizerError as error:
        return TargetPreflight(target, {}, error.detail)
    layers = find_layers(prepared.model)
    eligibility = backend.capabilities.dialect.eligibility(prepared.model, layers)
    counts = {one: sum(eligibility.can_take(layer, one) for layer in layers) for one in backend.capabilities.low_precisions}
    return TargetPreflight(target, counts)


def _call_seconds(path: Path, specs: Sequence[TensorSpec]) -> float | None:
    """Return the least of a few calls on ones, each free axis of length 1; None where they fail, are too large or take too long."""
    feeds = {}
    for spec in specs:
        shape = [size if isinstance(size, int) else 1 for size in spec.shape]
        if spec.dtype == "object" or not spec.has_rank or math.prod(shape) * np.dtype(spec.dtype).itemsize > _MOST_BYTES:
            return None
        feeds[spec.name] = np.ones(shape, spec.dtype)
    took: list[float] = []
    try:
        piece = Piece(path)
        while len(took) <= _CALLS and sum(took) < _FEW_SECONDS:
            begun = time.perf_counter()
            piece.run(feeds, limit_seconds=CALL_SECONDS)
            took.append(time.perf_counter() - begun)
    except CalibrationError:  # ones may be no sample of this model
        return None
    return min(took)


CALL_SECONDS = 10.0  # that a call may take, of the 100 that a server gives
_FEW_SECONDS = 2.0  # after which no further call is made
_MOST_BYTES = 2**28  # of an input
_CALLS = 5  # besides the first, which is slower
_PROBED_SAMPLES = 64
_PASSES_A_LAYER = 7.5
