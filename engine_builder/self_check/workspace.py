"""The files that the stages of self-check share, and what each of them does with an engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine_builder.backends.base import Runner
from engine_builder.config.config import ShapeRange
from engine_builder.self_check.cases import Case
from engine_builder.self_check.model import BATCH, INPUT, PICTURE
from engine_builder.workspace.workspace import StageContext

PREPARED = "prepared.onnx"
SAMPLES = "samples.npz"  # pictures; names and spans of the ranges
REFERENCE = "reference.npz"  # logits in float32
EXPLICIT = "{}.explicit.onnx"
SIMULATED = "{}.simulated.npz"  # logits of the explicit model in ONNX Runtime
PLAN = "{}.plan"


def shapes_of(case: Case) -> dict[str, ShapeRange]:
    """Return the one size that an engine of the case is built for."""
    shape = (case.batch, *PICTURE)
    return {INPUT: ShapeRange(shape, shape, shape)}


def outputs_of(runner: Runner, pictures: NDArray[np.float32], *, batch: int = BATCH) -> NDArray[np.float32]:
    """Return the logits, (n, classes), of as many whole batches as there are pictures; the runner is closed."""
    try:
        starts = range(0, len(pictures) - batch + 1, batch)
        parts = [runner.run({INPUT: np.ascontiguousarray(pictures[start : start + batch])})[0] for start in starts]
    finally:
        runner.close()
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])


def read_floats(context: StageContext, name: str) -> NDArray[np.float32]:
    """Return the array ``logits`` of a file of the workspace."""
    with np.load(context.workspace.path(name), allow_pickle=False) as arrays:
        return np.asarray(arrays["logits"], dtype=np.float32)
